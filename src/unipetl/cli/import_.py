"""``unipetl import``: another library's adapter folder as an attachment of ours."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from unipetl.cli import screen
from unipetl.cli.options import Class, Json, examples
from unipetl.cli.watching import hushed

EXAMPLES = examples(
    ("a LoRA of PEFT's", "unipetl import peft lora-folder -m roberta-base-folder -o mine"),
    ("an adapter of AdapterHub's", "unipetl import adapterhub adapter-folder -m user/base -o mine"),
    ("what came of it", "unipetl inspect mine"),
)


class Format(StrEnum):
    """The formats of other libraries."""

    peft = "peft"
    adapterhub = "adapterhub"


def command(
    kind: Annotated[Format, typer.Argument(metavar="peft|adapterhub", help="Whose folder it is.", show_default=False)],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder.")],
    model: Annotated[str, typer.Option("--model", "-m", metavar="MODEL", help="The base: a folder or a hub name.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Where to save it; it must be new.")],
    model_class: Class = None,
    name: Annotated[str, typer.Option(help="The attachment's name.")] = "default",
    shift_positions: Annotated[
        bool, typer.Option("--shift-positions", help="PEFT: take a prefix whose tokens are moved; see docs/peft.md.")
    ] = False,
    ignore_dropout: Annotated[
        bool, typer.Option("--ignore-dropout", help="AdapterHub: leave a bottleneck's dropout away; see docs.")
    ] = False,
    head: Annotated[bool | None, typer.Option("--head/--no-head", help="AdapterHub: take the head beside it.")] = None,
    as_json: Json = False,
) -> None:
    """Read an adapter folder of PEFT or AdapterHub, and save it as an attachment that computes the same.

    What unipetl cannot say exactly is refused, with the reason. Pickles are never opened.
    """
    from unipetl.experiment import import_folder

    with hushed():
        found = import_folder(
            kind.value, folder, out, model=model, model_class=model_class, name=name, head=head,
            shift_positions=shift_positions or None, ignore_dropout=ignore_dropout or None,
        )  # fmt: skip
    if as_json:
        screen.show_json(found.to_dict())
        return
    screen.show(f"{found.path}: {found.parameters:,} values. unipetl inspect {found.path} shows them.")
