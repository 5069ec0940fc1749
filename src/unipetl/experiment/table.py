"""The result of a comparison, read from the directories of its runs and from nowhere else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from unipetl.errors import RunError
from unipetl.experiment.directory import RunDirectory, RunResult, write_json
from unipetl.experiment.divergence import MEANING, diverged, mark
from unipetl.experiment.grid import Cell, ComparePlan, load_plan
from unipetl.files import from_json, memory_text, write_text
from unipetl.markdown import code_cell, escape

#: Why a run whose score is no number has no place in a mean.
DIVERGED = "its score is not a number; the training diverged, a lower learning rate may help"


@dataclass(frozen=True)
class Row:
    """One method on one task, over its seeds.

    Attributes:
        label, method: its name in the plan, and its notation.
        parameters, share, paper_parameters: what it trains; the share is of the base model.
        scores: the task's metric by seed, of the runs that are done.
        mean, std: of the scores; the standard deviation is that of a sample, and None for fewer than two.
        train_seconds: the mean over seeds; ``peak_memory_bytes`` the highest.
        diverged: the seeds of runs that have a score and whose loss is no number.
    """

    label: str
    method: str
    parameters: int
    share: float
    paper_parameters: int
    scores: dict[int, float]
    mean: float
    std: float | None
    train_seconds: float
    peak_memory_bytes: int
    diverged: tuple[int, ...] = ()

    def score(self) -> str:
        """Return the mean with its spread, and how many of its runs diverged."""
        spread = "" if self.std is None else f" ± {self.std:.2f}"
        return f"{self.mean:.2f}{spread}{mark(len(self.diverged), len(self.scores))}"


@dataclass(frozen=True)
class Table:
    """One task, on one model if there are several: its metric, and a row per method that has a result."""

    task: str
    metric: str
    greater_is_better: bool
    base_parameters: int
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Failure:
    """A run without a result, and why."""

    task: str
    label: str
    seed: int
    error: str
    message: str
    path: str


@dataclass(frozen=True)
class Comparison:
    """What a comparison found: a table per task, and what failed or is missing."""

    path: Path
    name: str | None
    tables: tuple[Table, ...]
    failures: tuple[Failure, ...]
    missing: int

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as JSON-ready data."""
        data = asdict(self)
        del data["path"]
        return data

    def to_markdown(self) -> str:
        """Return the comparison as Markdown."""
        parts = [f"# {escape(self.name or 'Comparison')}"]
        parts += [_markdown(table) for table in self.tables]
        if self.missing:
            parts.append(f"Runs not made yet: {self.missing}.")
        if self.failures:
            told = (f"{one.task}, {one.label}, seed {one.seed}: {one.error}: {one.message}" for one in self.failures)
            parts.append("## Failed\n\n" + "\n".join(f"- {escape(text)}" for text in told))
        return "\n\n".join(parts) + "\n"


def report(directory: str | Path, plan: ComparePlan | None = None) -> Comparison:
    """Read the runs of a comparison, finished or not, and write ``comparison.json``, ``.md`` and ``.png`` beside them.

    Args:
        directory: of the comparison.
        plan: the plan; None for the one in the directory.

    Raises:
        RunError: there is no comparison.
    """
    from unipetl.experiment.plot import draw

    folder = Path(directory)
    if plan is None:
        if not (folder / "plan.yaml").is_file():
            raise RunError(f"{str(folder)!r} is no comparison: it has no plan.yaml.")
        plan = load_plan(folder / "plan.yaml", tasks=None)
    found = read(folder, plan)
    write_json(folder / "comparison.json", found.to_dict())
    write_text(folder / "comparison.md", found.to_markdown())
    if found.tables:
        draw(found, folder / "comparison.png")
    return found


def read(folder: Path, plan: ComparePlan) -> Comparison:
    """Read the runs of a comparison and write nothing."""
    tables: dict[tuple[str, str | None], list[tuple[Cell, list[RunResult]]]] = {}
    failures, missing = [], 0
    for cell in plan.cells():
        results = []
        for seed in plan.seeds:
            run = folder / cell.folder() / f"seed-{seed}"
            try:
                result = RunDirectory(run).result()
            except RunError as error:
                failures.append(Failure(cell.title, cell.label, seed, "RunError", str(error), _relative(run, folder)))
                continue
            if result is not None and finite(result):
                results.append(result)
                continue
            if result is not None:
                failures.append(Failure(cell.title, cell.label, seed, "RunError", DIVERGED, _relative(run, folder)))
                continue
            reason = why(run)
            if reason is None:
                missing += 1
            else:
                failures.append(Failure(cell.title, cell.label, seed, *reason, _relative(run, folder)))
        if results:
            tables.setdefault((cell.task, cell.model), []).append((cell, results))
    made = tuple(_table(rows[0][0].title, rows) for rows in tables.values())
    return Comparison(folder, plan.name, made, tuple(failures), missing)


def finite(result: RunResult) -> bool:
    """Say whether a run's score is a number: what is none is null in its file."""
    return math.isfinite(result.score)


def why(run: Path) -> tuple[str, str] | None:
    """Return the error and its message that a run without a result left beside its directory; None if it left none."""
    file = run.with_name(f"{run.name}.failed.json")
    if not file.is_file():
        return None
    try:
        data = from_json(file.read_text(encoding="utf-8"))
        return str(data["error"]), str(data["message"])
    except (ValueError, KeyError, TypeError):
        return "RunError", f"{str(file)!r} is damaged"


def _table(task: str, rows: Sequence[tuple[Cell, Sequence[RunResult]]]) -> Table:
    first = rows[0][1][0]
    made = tuple(_row(cell, results) for cell, results in rows)
    return Table(task, first.metric, first.greater_is_better, first.base_parameters, made)


def _row(cell: Cell, results: Sequence[RunResult]) -> Row:
    first = results[0]
    scores = [one.score for one in results]
    return Row(
        label=cell.label,
        method=cell.recipe.method_text(),
        parameters=first.parameters,
        share=first.share,
        paper_parameters=first.paper_parameters,
        scores={one.seed: one.score for one in results},
        mean=mean(scores),
        std=stdev(scores) if len(scores) > 1 else None,
        train_seconds=mean(one.train_seconds for one in results),
        peak_memory_bytes=max(one.peak_memory_bytes for one in results),
        diverged=tuple(one.seed for one in results if diverged(one)),
    )


def _relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _markdown(table: Table) -> str:
    direction = "higher is better" if table.greater_is_better else "lower is better"
    lines = [
        f"## {escape(table.task)}",
        "",
        f"{escape(table.metric)} ({direction}); the base model has {table.base_parameters:,} parameters.",
        "",
        f"| method | trained parameters | share | {escape(table.metric)} | seeds | training | peak memory | notation |",
        "|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    for row in table.rows:
        memory = memory_text(row.peak_memory_bytes)
        lines.append(
            f"| {escape(row.label)} | {row.parameters:,} | {100 * row.share:.2f} % | {row.score()} | "
            f"{len(row.scores)} | {row.train_seconds:.0f} s | {memory} | {code_cell(row.method)} |"
        )
    if any(row.diverged for row in table.rows):
        lines += ["", MEANING]
    return "\n".join(lines)
