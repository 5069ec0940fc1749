"""``unipetl fold``: a run's model as a plain checkpoint, with nothing of unipetl left in it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unipetl.cli import screen
from unipetl.cli.options import Json, examples
from unipetl.cli.results import run_directories
from unipetl.cli.watching import hushed

EXAMPLES = examples(
    ("a checkpoint that needs no unipetl", "unipetl fold runs/first -o plain"),
    ("compared on more examples before it counts", "unipetl fold runs/first -o plain --examples 64"),
)


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The directory of a finished run.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="The checkpoint's folder; it must be new.")],
    compared: Annotated[
        int, typer.Option("--examples", min=1, help="How many evaluation examples to compare results for.")
    ] = 8,
    tolerance: Annotated[
        float | None,
        typer.Option(min=0.0, help="How far results may be apart, as a share of the largest (by dtype if not given)."),
    ] = None,
    dequantize: Annotated[
        bool, typer.Option("--dequantize", help="Replace quantised modules that are in the way by dense ones.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Fold a run's attachment into its model and write a plain checkpoint, checked before it is there.

    LoRA, (IA)^3, biases and heads fold into weights; a parallel FFN adapter with the FFN's own activation
    (activation=model) becomes a wider FFN. The checkpoint is written beside DIR, read back, and its results are
    compared with the run's own; only then it gets its name. What does not fold is said, with the reason, and
    nothing is written.
    """
    from unipetl.errors import RunError
    from unipetl.experiment import fold_run

    paths = run_directories(run)
    if len(paths) > 1:
        names = ", ".join(path.name for path in paths)
        raise RunError(f"{str(run)!r} holds several runs ({names}); name one of them.")
    with hushed():
        written = fold_run(paths[0], out, examples=compared, tolerance=tolerance, dequantize=dequantize)
    if as_json:
        screen.show_json({"path": str(written.path), **written.to_dict()})
        return
    rows = [[row.what, row.where or "-", row.places, row.into] for row in written.folding.rows]
    screen.show_table(("change", "where", "places", "folded into"), rows, numbers=("places",))
    for name, value in written.folding.settings.items():
        screen.show(f"config: {name} = {value}")
    screen.show(
        f"{written.path}: {written.parameters_after:,} parameters; results of {compared} examples are within "
        f"{written.difference:.2g} of the run's (largest value {written.scale:.3g})."
    )
