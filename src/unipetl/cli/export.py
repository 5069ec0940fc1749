"""``unipetl export``: a run's attachment, or a saved one, as another library's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unipetl.cli import screen
from unipetl.cli.import_ import Format
from unipetl.cli.options import Base, Class, Json, examples
from unipetl.cli.watching import hushed

EXAMPLES = examples(
    ("a run's LoRA for PEFT", "unipetl export runs/first --to peft -o lora"),
    ("the same for engines that serve LoRA folders", "unipetl export runs/first --to peft --uniform -o lora"),
    ("a saved attachment, whose base must be named", "unipetl export mine --to adapterhub -m user/base -o adapter"),
)


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run, or a saved attachment.")],
    to: Annotated[Format, typer.Option("--to", metavar="peft|adapterhub", help="Whose format.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="The folder to write; it must be new.")],
    model: Base = None,
    model_class: Class = None,
    shift_positions: Annotated[
        bool, typer.Option("--shift-positions", help="PEFT: write a prefix whose tokens it moves; see docs/peft.md.")
    ] = False,
    ignore_dropout: Annotated[
        bool, typer.Option("--ignore-dropout", help="AdapterHub: leave a bottleneck's dropout away; see docs.")
    ] = False,
    uniform: Annotated[
        bool, typer.Option("--uniform", help="PEFT: one rank and one alpha, as engines that serve LoRA want it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write an attachment as a folder that PEFT or AdapterHub reads as the same function of the same base.

    What the format cannot say is refused, with the reason, and nothing is written.
    """
    from unipetl.experiment import export_run

    with hushed():
        found = export_run(
            run, out, to=to.value, model=model, model_class=model_class,
            shift_positions=shift_positions or None, ignore_dropout=ignore_dropout or None, uniform=uniform or None,
        )  # fmt: skip
    if as_json:
        screen.show_json(found.to_dict())
        return
    files = ", ".join(sorted(one.name for one in found.path.iterdir()))
    screen.show(f"{found.path}: {found.parameters:,} values in {files}.")
