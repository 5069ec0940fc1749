"""``unipetl evaluate``: score finished runs again, from what they saved."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from unipetl.cli import screen
from unipetl.cli.options import Json, examples
from unipetl.cli.results import run_directories
from unipetl.cli.watching import hushed

EXAMPLES = examples(
    ("every seed of an experiment, or one run", "unipetl evaluate runs/first"),
    ("on the first examples", "unipetl evaluate runs/first/seed-0 --limit 100"),
)


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The directory of a run, or of a run per seed.")],
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many examples.")] = None,
    as_json: Json = False,
) -> None:
    """Score the attachments that runs have saved, on their tasks' evaluation data."""
    from unipetl.experiment import evaluate
    from unipetl.experiment.directory import RunDirectory

    found: list[dict[str, Any]] = []
    with hushed():
        for path in run_directories(run):
            metrics = evaluate(path, limit=limit)
            recorded = RunDirectory(path).result()
            found.append({"path": str(path), "metrics": metrics, "recorded": recorded.metrics if recorded else {}})
    if as_json:
        screen.show_json({"limit": limit, "runs": found})
        return
    rows = [
        [str(one["path"]), name, f"{value:.4f}", f"{one['recorded'][name]:.4f}" if name in one["recorded"] else "-"]
        for one in found
        for name, value in one["metrics"].items()
    ]
    screen.show_table(("run", "metric", "now", "when it was trained"), rows, numbers=("now", "when it was trained"))
    if limit is not None:
        screen.say(f"now: on at most {limit} examples.")
