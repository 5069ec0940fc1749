"""Finished runs as a table, and where runs lie."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from unipetl.cli import screen

if TYPE_CHECKING:
    from unipetl.experiment import Comparison, RunResult


def seed_directory(output: Path, seed: int) -> Path:
    """Return where the run of ``seed`` lies under the directory of an experiment."""
    return output / f"seed-{seed}"


def run_directories(path: Path) -> list[Path]:
    """Return ``path`` if it is a run, else the runs of an experiment's seeds in it.

    Raises:
        RunError: there is no run.
    """
    from unipetl.experiment import directory

    return directory.run_directories(path)


def show_results(results: Sequence[RunResult]) -> None:
    """Write a table of finished runs of one recipe, and their mean."""
    first = results[0]
    columns = ("seed", first.metric, "trained", "share", "steps", "time", "directory")
    rows: list[list[object]] = [
        [
            str(one.seed),
            f"{one.score:.4f}",
            one.parameters,
            screen.percent(one.share),
            one.steps,
            duration(one.train_seconds),
            str(one.path),
        ]
        for one in results
    ]
    if len(results) > 1:
        scores = [one.score for one in results]
        rows += [[], ["mean", f"{mean(scores):.4f} ± {stdev(scores):.4f}", None, None, None, None, ""]]
    screen.show_table(columns, rows, numbers=columns[:-1])


def show_comparison(found: Comparison) -> None:
    """Write a table per task of a comparison, what failed and what is missing."""
    from unipetl.files import memory_text

    for table in found.tables:
        direction = "higher" if table.greater_is_better else "lower"
        screen.show(f"\n{table.task}: {table.metric}, {direction} is better", style="bold")
        columns = ("method", "trained", "share", "paper's count", table.metric, "seeds", "training", "peak memory")
        rows: list[list[object]] = [
            [
                row.label,
                row.parameters,
                screen.percent(row.share),
                row.paper_parameters,
                row.score(),
                len(row.scores),
                duration(row.train_seconds),
                memory_text(row.peak_memory_bytes),
            ]
            for row in table.rows
        ]
        screen.show_table(columns, rows, numbers=columns[1:])
    _say_diverged(found)
    for one in found.failures:
        screen.say(f"failed: {one.task}, {one.label}, seed {one.seed}: {one.error}: {one.message}", style="red")
    if found.missing:
        screen.show(f"\nNot made yet: {screen.counted(found.missing, 'run')}.")


def counted_runs(finished: int, failed: int, missing: int) -> str:
    """Return how many runs there are of each kind, such as ``6 finished runs, 1 failed and 2 not made yet``."""
    more = [f"{failed} failed"] if failed else []
    more += [f"{missing} not made yet"] if missing else []
    said = screen.counted(finished, "finished run")
    return f"{said}, {' and '.join(more)}" if more else said


def _say_diverged(found: Comparison) -> None:
    from unipetl.experiment.divergence import MEANING

    count = sum(len(row.diverged) for table in found.tables for row in table.rows)
    if count:
        screen.say(f"{screen.counted(count, 'run')} diverged. {MEANING}", style="yellow")


def result_data(result: RunResult) -> dict[str, Any]:
    """Return a finished run as JSON-ready data, its directory included."""
    return {"path": str(result.path), **result.to_dict()}


def duration(seconds: float) -> str:
    """Return seconds as ``1 h 02 min``, ``3 min 20 s`` or ``4.2 s``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
