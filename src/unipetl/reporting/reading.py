"""Reads the folders that a report is made from: comparisons, experiments of several seeds, and single runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from unipetl.errors import RunError
from unipetl.experiment.comparing import PLAN, run_directory
from unipetl.experiment.directory import RunDirectory, read_lines
from unipetl.experiment.grid import load_plan
from unipetl.experiment.recipe import Recipe
from unipetl.experiment.table import DIVERGED, Failure, finite, why
from unipetl.files import from_json
from unipetl.reporting import searches
from unipetl.reporting.experiments import Column, Experiment, Found, Run, Source
from unipetl.reporting.sheets import Sheet
from unipetl.search.definition import load_search
from unipetl.search.result import read_result
from unipetl.search.searching import DEFINITION

#: How many points of a search are shown with their curves and places; the table has all.
BEST_POINTS = 10


def gather(folders: Sequence[str | Path]) -> Found:
    """Read everything that the folders hold about finished, failed and missing runs; nothing is written.

    Args:
        folders: comparisons (with a plan.yaml), searches (with a search.yaml), experiments (with seed-N inside) and
            single runs, in any mix. Runs of the same recipe are one experiment; of two with the same seed the first
            counts.

    Raises:
        RunError: a folder holds none of these, or none has a finished or failed run.
    """
    reader = _Reader()
    for one in folders:
        reader.read(Path(one))
    if not reader.experiments and not reader.failures:
        named = ", ".join(repr(str(one)) for one in folders)
        raise RunError(f"nothing to report in {named}: no run there is finished ({reader.missing} are not made yet).")
    return reader.found([Path(one) for one in folders])


@dataclass
class _Reader:
    experiments: dict[tuple[str, str, str], Experiment] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)
    sheets: list[Sheet] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    missing: int = 0

    def read(self, folder: Path) -> None:
        if (folder / PLAN).is_file():
            self._comparison(folder)
            return
        if (folder / DEFINITION).is_file():
            self._search(folder)
            return
        runs = sorted(_runs_in(folder), key=lambda one: (len(one.name), one.name))
        if not runs:
            raise RunError(_no_runs(folder))
        for path in runs:
            found = self._recipe(path, str(path), folder.resolve().name)
            if found is not None:
                recipe, seed = found
                self._run(path, _called(path, recipe), recipe.name or recipe.method_text(), recipe, seed, str(path))

    def _recipe(self, path: Path, shown: str, label: str) -> tuple[Recipe, int] | None:
        """Return a run's recipe and seed; one that is damaged is among the failures, and hides no other."""
        try:
            return RunDirectory(path).read_recipe()
        except RunError as error:
            seed = path.name.removeprefix("seed-")
            number = int(seed) if seed.isdecimal() else 0
            self.failures.append(Failure("–", label, number, "RunError", str(error), shown))
            return None

    def _comparison(self, folder: Path) -> None:
        plan = load_plan(folder / PLAN, tasks=None)
        self._source(folder, PLAN, "compare")
        self.names.append(plan.name or folder.resolve().name)
        for cell in plan.cells():
            for seed in plan.seeds:
                path = run_directory(folder, cell, seed)
                self._run(path, cell.task, cell.label, cell.recipe, seed, path.relative_to(folder).as_posix())

    def _search(self, folder: Path) -> None:
        definition = load_search(folder / DEFINITION, tasks=None)
        found = read_result(folder)
        self._source(folder, DEFINITION, "search")
        self.names.append(definition.name or folder.resolve().name)
        self.sheets += searches.sheets(found)
        for one in found.best(BEST_POINTS):
            for run in one.runs:
                recipe = self._recipe(folder / run, run, f"point {one.number}")
                if recipe is not None:
                    self._run(folder / run, recipe[0].task, f"point {one.number}", *recipe, run)
        failed = [one for one in found.tried if one.state == "failed"]
        self.failures += [
            Failure(found.task, f"point {one.number}", definition.seeds[0], "failed", one.reason, (*one.runs, "")[0])
            for one in failed
        ]

    def _source(self, folder: Path, file: str, verb: str) -> None:
        text = (folder / file).read_text(encoding="utf-8")
        self.sources.append(Source(folder.resolve().name, file, f"unipetl {verb} {file}", text))

    def _run(self, path: Path, task: str, label: str, recipe: Recipe, seed: int, shown: str) -> None:
        title = f"{task}, {recipe.model}" if recipe.model else task
        try:
            result = RunDirectory(path).result()
        except RunError as error:
            self.failures.append(Failure(title, label, seed, "RunError", str(error), shown))
            return
        if result is None:
            reason = why(path)
            if reason is None:
                self.missing += 1
            else:
                self.failures.append(Failure(title, label, seed, *reason, shown))
            return
        if not finite(result):
            self.failures.append(Failure(title, label, seed, "RunError", DIVERGED, shown))
            return
        files = RunDirectory(path)
        lines: list[Any] = read_lines(files.log)
        log = tuple(row for row in lines if isinstance(row, dict) and isinstance(row.get("step"), int))
        run = Run(result, log, _json(files.environment) or {}, _plan(files.plan), shown)
        key = (task, recipe.model or "", recipe.hash())
        before = self.experiments.get(key)
        if before is None:
            self.experiments[key] = Experiment(label, recipe, (run,), task)
        elif seed not in {one.result.seed for one in before.runs}:
            self.experiments[key] = replace(before, runs=(*before.runs, run))

    def found(self, folders: Sequence[Path]) -> Found:
        columns: dict[tuple[str, str], list[Experiment]] = {}
        for one in self.experiments.values():
            column = columns.setdefault(one.column, [])
            taken = {other.label for other in column}
            column.append(replace(one, label=_free(one, taken)))
        made = tuple(Column(task, model, tuple(all_)) for (task, model), all_ in columns.items())
        names = self.names or [one.resolve().name for one in folders]
        return Found(
            ", ".join(dict.fromkeys(names)),
            made,
            tuple(self.failures),
            self.missing,
            tuple(self.sources),
            tuple(self.sheets),
        )


def _called(run: Path, recipe: Recipe) -> str:
    """Return what a run's task is called: in a comparison's ``runs/<task>/<method>/seed-<n>`` the name in its plan."""
    above = run.resolve().parents
    inside = len(above) > 3 and (above[3] / PLAN).is_file() and above[2].name == "runs"
    return above[1].name if inside else recipe.task


def _free(one: Experiment, taken: set[str]) -> str:
    """Return a label that no other experiment of the column has."""
    label = one.label
    if label in taken:
        label = f"{one.label}: {one.recipe.method_text()}"
    if label in taken:
        label = f"{label} ({one.recipe.hash()[:8]})"
    return label


def _runs_in(folder: Path) -> Iterator[Path]:
    if RunDirectory(folder).recipe.is_file():
        yield folder
    elif folder.is_dir():
        yield from (one for one in folder.glob("seed-*") if RunDirectory(one).recipe.is_file())


def _no_runs(folder: Path) -> str:
    files = "plan.yaml, search.yaml, recipe.yaml or seed-N"
    expected = f"expected what `unipetl compare`, `search` or `train` wrote: a folder with {files}"
    if not folder.exists():
        return f"{str(folder)!r} does not exist; {expected}."
    if not folder.is_dir():
        return f"{str(folder)!r} is a file; {expected}."
    near = sorted(one.parent for one in folder.glob(f"*/{PLAN}"))
    hint = f" There is a comparison in {str(near[0])!r}." if near else ""
    return f"{str(folder)!r} holds no runs; {expected}.{hint}"


def _json(path: Path) -> Mapping[str, Any] | None:
    """Return a file's JSON object; None where there is none, since a report also shows what is damaged around it."""
    try:
        data = from_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None


def _plan(path: Path) -> Mapping[str, Any] | None:
    """Return a recorded plan; None where there is none, or what is there is not one."""
    data = _json(path)
    if data is None:
        return None
    rows, trained, head = data.get("rows"), data.get("trained"), data.get("head")
    sound = isinstance(rows, list) and all(isinstance(row, dict) for row in rows)
    sound = sound and isinstance(trained, dict) and all(isinstance(size, int) for size in trained.values())
    return data if sound and isinstance(head, list) and all(isinstance(one, str) for one in head) else None
