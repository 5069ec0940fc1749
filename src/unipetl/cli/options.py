"""Options that several verbs share, and how a method is given on the command line."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from unipetl.method import Method

Json = Annotated[bool, typer.Option("--json", help="Write JSON on standard output, messages on standard error.")]
Model = Annotated[
    str,
    typer.Option("--model", "-m", metavar="MODEL", help="A standard name, a folder with a config.json, or a hub name."),
]
Base = Annotated[
    str | None,
    typer.Option("--model", "-m", metavar="MODEL", help="The base: a folder or a hub name. A run knows its own."),
]
Class = Annotated[
    str | None, typer.Option("--class", metavar="CLASS", help="The base's class, where its config does not name it.")
]

Budget = Annotated[
    str | None,
    typer.Option(
        "--budget",
        metavar="SHARE",
        help="Solve for the sizes at which methods train so much, such as 0.5% of the model or 200k parameters.",
    ),
]
Rule = Annotated[
    Literal["true", "paper"],
    typer.Option("--count", help="With --budget: every value that is added, or the paper's weight matrices alone."),
]


def examples(*lines: tuple[str, str]) -> str:
    """Return a help text's last paragraph, from pairs of a note and the command line it is about."""
    shown = [f"[dim]# {_plain(note)}[/dim]\n$ {_plain(line)}" for note, line in lines]
    return "\n".join(["[bold]Examples[/bold]", *shown])


def paragraphs(command: Callable[..., object]) -> str:
    """Return a command's docstring with each paragraph on one line, to be broken where the screen ends."""
    text = inspect.cleandoc(command.__doc__ or "")
    return _plain("\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n")))


def _plain(text: str) -> str:
    """Return text so that Rich takes none of it for markup, such as the ``[search]`` of ``unipetl[search]``."""
    return text.replace("[", "\\[")


def read_method(text: str) -> Method:
    """Return the method that ``text`` denotes: notation, or the path of a YAML or JSON file.

    Raises:
        NotationError, MethodError: it denotes none.
        OSError: the file cannot be read.
    """
    from unipetl import notation
    from unipetl.errors import MethodError, NotationError
    from unipetl.method import Method

    if text.endswith((".yaml", ".yml", ".json")):
        if not Path(text).exists():
            raise NotationError(f"method {text!r}: there is no such file.")
        try:
            return Method.from_yaml(Path(text).read_text(encoding="utf-8"))
        except MethodError as error:
            raise type(error)(f"{text}: {error}") from None
        except UnicodeDecodeError as error:
            raise NotationError(f"{text}: this is not UTF-8 text: {error}.") from None
    return notation.parse(text)
