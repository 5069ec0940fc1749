"""``unipetl predict``: what a trained run makes of one's own texts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unipetl.cli import screen
from unipetl.cli.options import Json, examples
from unipetl.cli.results import run_directories
from unipetl.cli.watching import hushed

if TYPE_CHECKING:
    from collections.abc import Sequence

EXAMPLES = examples(
    ("texts on the command line", "unipetl predict runs/first/seed-0 tomato schedule"),
    (
        "a file with a text on each line, or - for standard input",
        "unipetl predict runs/first -i words.txt -o out.jsonl",
    ),
    ("what it predicted on the evaluation data", "unipetl predict runs/first --json"),
)


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The directory of a finished run.")],
    texts: Annotated[list[str] | None, typer.Argument(metavar="[TEXT]...", help="Texts to predict.")] = None,
    inputs: Annotated[
        str | None, typer.Option("--inputs", "-i", metavar="FILE", help="One text a line; - is standard input.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write the rows here, as JSON lines.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Predict texts with a run's model and attachment; without texts, show its predictions on the evaluation data."""
    if texts and inputs is not None:
        raise typer.BadParameter("give texts or a file, not both.", param_hint="--inputs")
    from unipetl.errors import RunError
    from unipetl.experiment import predict

    paths = run_directories(run)
    if len(paths) > 1:
        names = ", ".join(path.name for path in paths)
        raise RunError(f"{str(run)!r} holds several runs ({names}); name one of them.")
    with hushed():
        rows = predict(paths[0], _inputs(texts, inputs), output=output)
    if as_json:
        screen.show_json(rows)
    elif output is not None:
        screen.say(f"{len(rows)} rows in {output}")
    else:
        _show(rows)


def _inputs(texts: Sequence[str] | None, inputs: str | None) -> Sequence[str] | Path | None:
    if inputs == "-":
        return [line.strip() for line in sys.stdin if line.strip()]
    return Path(inputs) if inputs is not None else texts or None


def _show(rows: Sequence[dict[str, Any]]) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    numbers = [name for name in columns if all(_is_number(row.get(name)) for row in rows)]
    cells = [[f"{row[c]:.4f}" if isinstance(row.get(c), float) else row.get(c) for c in columns] for row in rows]
    screen.show_table(columns, cells, numbers=numbers)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
