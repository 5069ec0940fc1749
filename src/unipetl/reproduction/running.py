"""Runs rows of the paper's tables, each as a comparison of its own, and puts the results beside the printed numbers.

Every cell's runs lie in ``DIR/<task>/<method>-<hash>/``, by what they compute: what stands in two tables runs once.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from unipetl.errors import DownloadError, RunError
from unipetl.experiment.comparing import PLAN, CompareListener, compare
from unipetl.experiment.divergence import diverged, mark
from unipetl.experiment.grid import ComparePlan, load_plan
from unipetl.experiment.recipe import Recipe
from unipetl.experiment.table import Comparison
from unipetl.reproduction.overview import Planned


@dataclass(frozen=True)
class Reproduced:
    """A cell of the paper beside what its runs found.

    Attributes:
        planned: the cell.
        path: where its runs lie.
        scores: metric -> its values by seed.
        failures: why runs have no result.
        diverged: the seeds of runs that have a score and whose loss is no number.
    """

    planned: Planned
    path: Path
    scores: Mapping[str, Mapping[int, float]]
    failures: tuple[str, ...]
    diverged: tuple[int, ...] = ()

    def text(self, metric: str) -> str:
        """Return what was found as text, such as ``21.90 ± 0.05``, or nothing."""
        values = list(self.scores.get(metric, {}).values())
        if not values:
            return ""
        spread = f" ± {stdev(values):.2f}" if len(values) > 1 else ""
        return f"{mean(values):.2f}{spread}{mark(len(self.diverged), len(values))}"

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready data."""
        scores = {metric: {str(seed): value for seed, value in found.items()} for metric, found in self.scores.items()}
        return {
            **self.planned.to_dict(),
            "path": str(self.path),
            "scores": scores,
            "failures": list(self.failures),
            "diverged": list(self.diverged),
        }


def check_models_and_data(planned: Sequence[Planned]) -> None:
    """See that every model and data set can be had; what is on the hub is fetched into its cache.

    Raises:
        TaskError, DownloadError: one cannot be; the message says what would work.
    """
    from unipetl.tasks import get_task

    seen = []
    for one in planned:
        wanted = (one.recipe.task, one.recipe.model, one.recipe.options)
        if wanted not in seen:
            seen.append(wanted)
            task = get_task(one.recipe.task).configure(one.recipe.options)
            try:
                task.prepare(model=one.recipe.model, **task.few())
            except DownloadError as error:
                raise DownloadError(f"{error} Here that is --data DIR, a folder with train.jsonl and so on.") from error


def reproduce(
    planned: Sequence[Planned],
    directory: str | Path,
    *,
    jobs: int = 1,
    progress: CompareListener | None = None,
) -> list[Reproduced]:
    """Run what is missing of the cells, one after the other; return each beside its printed numbers.

    Args:
        planned: the cells.
        directory: where all reproductions lie.
        jobs: how many seeds at once.
        progress: called as runs go on.

    Raises:
        RunError: another process is at work there.
        KeyboardInterrupt: call again to go on.
    """
    return [_reproduce(one, Path(directory), jobs, progress) for one in planned]


def _reproduce(one: Planned, root: Path, jobs: int, progress: CompareListener | None) -> Reproduced:
    folder = root / folder_of(one.recipe)
    compare(_plan(one.recipe, folder), folder, jobs=jobs, progress=progress)
    return found(one, root)


def found(one: Planned, directory: str | Path) -> Reproduced:
    """Return what a cell's runs in ``directory`` found, finished or not.

    Raises:
        RunError: there are none.
    """
    from unipetl.experiment.directory import result_if_sound
    from unipetl.experiment.table import read

    folder = Path(directory) / folder_of(one.recipe)
    if not (folder / PLAN).is_file():
        raise RunError(f"{str(folder)!r}: nothing of {one.row.place} {one.row.key} on {one.cell.task} has run here.")
    plan = load_plan(folder / PLAN, tasks=None)
    comparison: Comparison = read(folder, plan)
    scores: dict[str, dict[int, float]] = {}
    lost = []
    (cell,) = plan.cells()
    for seed in one.recipe.seeds:
        result = result_if_sound(folder / cell.folder() / f"seed-{seed}")
        for metric, value in (result.metrics if result else {}).items():
            if math.isfinite(value):
                scores.setdefault(metric, {})[seed] = value
        if result and diverged(result):
            lost.append(seed)
    failures = tuple(f"seed {each.seed}: {each.error}: {each.message}" for each in comparison.failures)
    return Reproduced(one, folder, scores, failures, tuple(lost))


def folder_of(recipe: Recipe) -> Path:
    """Return where a recipe's runs lie, below the directory of all reproductions."""
    words = re.sub(r"[^0-9A-Za-z]+", "_", recipe.method_text()).strip("_")[:60]
    return Path(recipe.task) / f"{words}-{recipe.hash()[:8]}"


def _plan(recipe: Recipe, folder: Path) -> ComparePlan:
    """Return a recipe as a comparison of one method; seeds that have run there stay in it."""
    seeds = list(recipe.seeds)
    if (folder / PLAN).is_file():
        seeds += [seed for seed in load_plan(folder / PLAN, tasks=None).seeds if seed not in seeds]
    method = recipe.method_text()
    part = {
        "model": recipe.model,
        "limit": recipe.limit,
        "evaluation_limit": recipe.evaluation_limit,
        "options": recipe.options,
        "training": recipe.training,
    }
    tasks: dict[str, Any] = {recipe.task: {name: value for name, value in part.items() if value}}
    methods: dict[str, Any] = {method: {"method": recipe.method, "train_head": recipe.train_head}}
    return ComparePlan(name=f"{recipe.task}: {method}", tasks=tasks, methods=methods, seeds=tuple(seeds))
