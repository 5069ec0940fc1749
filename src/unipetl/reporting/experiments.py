"""What a report is about: experiments, each a method on a task and a model with the runs of its seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from unipetl.experiment.directory import RunResult
from unipetl.experiment.recipe import Recipe
from unipetl.experiment.table import Failure
from unipetl.reporting.sheets import Sheet

#: From this share on a method trains the whole model; what it adds beside can make it a little more than one.
WHOLE = 0.999


@dataclass(frozen=True)
class Run:
    """A finished run with what its directory says about it.

    Attributes:
        result: what it found.
        log: the rows of ``log.jsonl``.
        environment: what it ran on.
        plan: what its method changes where; None for zero-shot and for runs that recorded none.
        folder: its directory, as shown to people.
    """

    result: RunResult
    log: tuple[Mapping[str, Any], ...]
    environment: Mapping[str, Any]
    plan: Mapping[str, Any] | None
    folder: str


@dataclass(frozen=True)
class Experiment:
    """A method on a task and a model, over its seeds.

    Attributes:
        label: its name for people.
        recipe: what ran.
        runs: the finished runs, one per seed, at least one.
        task: what its task is called: the name in the plan, or the recipe's task.
    """

    label: str
    recipe: Recipe
    runs: tuple[Run, ...]
    task: str

    @property
    def first(self) -> RunResult:
        """The first run's result, for what does not depend on the seed."""
        return self.runs[0].result

    @property
    def column(self) -> tuple[str, str]:
        """The task and the model: what experiments of one table have in common."""
        return self.task, self.recipe.model or ""

    @property
    def whole(self) -> bool:
        """Whether every parameter is trained."""
        return self.first.share >= WHOLE

    @property
    def paper_share(self) -> float:
        """The share by the paper's rule, which counts weight matrices alone."""
        return self.first.paper_parameters / max(self.first.base_parameters, 1)

    def scores(self, metric: str | None = None) -> list[float]:
        """Return a metric's value by seed, the task's own by default; runs that lack it are left out."""
        if metric is None:
            return [one.result.score for one in self.runs]
        found = [one.result.metrics.get(metric) for one in self.runs]
        return [one for one in found if one is not None and math.isfinite(one)]

    def mean(self) -> float:
        """Return the mean score over the seeds."""
        return mean(self.scores())

    def std(self) -> float | None:
        """Return the standard deviation of a sample; None for fewer than two seeds."""
        found = self.scores()
        return stdev(found) if len(found) > 1 else None


@dataclass(frozen=True)
class Column:
    """A task on a model: its metric, and its experiments in the order of the plan."""

    task: str
    model: str
    experiments: tuple[Experiment, ...]

    @property
    def title(self) -> str:
        """The task, and the model where it is not the task's own."""
        return f"{self.task}, {self.model}" if self.model else self.task

    @property
    def metric(self) -> str:
        """The task's own metric."""
        return self.experiments[0].first.metric

    @property
    def greater_is_better(self) -> bool:
        """How to read the metric."""
        return self.experiments[0].first.greater_is_better

    @property
    def base_parameters(self) -> int:
        """The size of the base model."""
        return self.experiments[0].first.base_parameters

    def best(self) -> list[Experiment]:
        """Return the best of those that train a part of the model: more than one where they are equal."""
        rivals = [one for one in self.experiments if one.first.parameters > 0 and not one.whole]
        if not rivals:
            return []
        choose = max if self.greater_is_better else min
        top = choose(one.mean() for one in rivals)
        return [one for one in rivals if one.mean() == top]


@dataclass(frozen=True)
class Source:
    """A file that says what was asked for: a plan or a search, and the command that makes it again."""

    name: str
    file: str
    command: str
    text: str


@dataclass(frozen=True)
class Found:
    """Everything a report shows.

    Attributes:
        title: a name for people.
        columns: the tasks and models, each with its experiments.
        failures: runs without a result, with the reason.
        missing: how many runs are not made yet.
        sources: the files that say what was asked for.
        sheets: what else there is to show, such as which axes of a search matter.
    """

    title: str
    columns: tuple[Column, ...]
    failures: tuple[Failure, ...] = ()
    missing: int = 0
    sources: tuple[Source, ...] = ()
    sheets: tuple[Sheet, ...] = ()

    def runs(self) -> list[Run]:
        """Return every finished run."""
        return [run for column in self.columns for one in column.experiments for run in one.runs]

    def labels(self) -> list[str]:
        """Return the methods' names, in the order in which they first appear; a method has one number everywhere."""
        return list(dict.fromkeys(one.label for column in self.columns for one in column.experiments))

    def number(self, label: str) -> int:
        """Return a method's number, counted from 1."""
        return self.labels().index(label) + 1
