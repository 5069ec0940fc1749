"""Where errors become messages: a user's mistake is one red line and exit code 1, never a traceback.

``--verbose`` and ``--debug`` may stand anywhere on the line; this is also where libraries are silenced.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from unipetl.cli.screen import say
from unipetl.errors import PetlError

INTERRUPTED = 130
_ANYWHERE = ("--debug", "--verbose")
_LOUD = ("transformers", "datasets", "huggingface_hub", "accelerate", "matplotlib")


class Verbs(TyperGroup):
    """The group of every verb, which catches what they raise."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Let the options that every verb has stand behind the verb too."""
        end = args.index("--") if "--" in args else len(args)
        moved = [flag for flag in _ANYWHERE if flag in args[:end]]
        return super().parse_args(ctx, [*moved, *(a for i, a in enumerate(args) if i >= end or a not in _ANYWHERE)])

    def invoke(self, ctx: Any) -> Any:
        """Run a verb; what a user can cause ends in a message and an exit code."""
        debug = bool(ctx.params.get("debug")) or os.environ.get("UNIPETL_DEBUG", "") not in ("", "0")
        try:
            with _quiet(verbose=bool(ctx.params.get("verbose")) or debug):
                result = super().invoke(ctx)
                sys.stdout.flush()  # a full disk behind it shows here, not when Python ends
                return result
        except KeyboardInterrupt:
            say("interrupted.", style="yellow")
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:  # the reader, `head` for example, has seen enough
            _settle_output()
            raise typer.Exit(0) from None
        except Exception as error:
            if debug or not _is_the_users(error):
                raise
            fail(_explain(error))
            _settle_output()
            raise typer.Exit(1) from None


def _is_the_users(error: Exception) -> bool:
    """Say whether a user can cause and mend ``error``; anything else is a fault of ours and keeps its traceback."""
    out_of_memory = type(error).__name__ == "OutOfMemoryError"  # torch's, which is not imported for this
    return out_of_memory or isinstance(error, (PetlError, OSError, UnicodeError, MemoryError))


def _settle_output() -> None:
    """Write what standard output still holds; where it takes no more, let the rest go nowhere."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def fail(message: str) -> None:
    """Write why a verb failed, in red, on standard error."""
    say(f"error: {message}", style="red")


def _explain(error: BaseException) -> str:
    if isinstance(error, PetlError):
        return str(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "the memory is not enough. A smaller model, batch or length would do."
    if isinstance(error, UnicodeError):
        return f"a file is not UTF-8 text: {error}."
    if isinstance(error, OSError) and error.strerror:
        where = f"{str(error.filename)!r}: " if error.filename else ""
        return f"{where}{error.strerror}."
    return str(error) or type(error).__name__


@contextmanager
def _quiet(*, verbose: bool) -> Iterator[None]:
    """Silence what libraries log and warn of on their own account, unless ``verbose``."""
    if verbose:
        yield
        return
    before = {name: logging.getLogger(name).level for name in _LOUD}
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # read when transformers is first imported
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # so is this, by huggingface_hub
    for name in _LOUD:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
