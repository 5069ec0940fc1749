"""What a search found, read from its study: the best points, and which axes matter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import TypeAdapter, ValidationError

from unipetl.errors import RunError
from unipetl.experiment.directory import write_json
from unipetl.experiment.grid import ComparePlan
from unipetl.files import from_json, write_text
from unipetl.method import Method
from unipetl.search import study as memory
from unipetl.search.definition import Search

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

    from unipetl.tasks import Task

RESULT, BEST = "search.json", "best.yaml"
#: Fewer finished points than this say nothing about the axes.
ENOUGH = 8
#: How many of the best are shown and confirmed, with how many seeds.
SHOWN, CONFIRMED, CONFIRMING_SEEDS = 5, 3, 3


@dataclass(frozen=True)
class Tried:
    """One point that was trained.

    Attributes:
        number: its trial's.
        state: ``complete``, ``pruned`` or ``failed``.
        score: the mean over the seeds, of a complete one.
        axes: what was chosen on every axis.
        method: the method, as data.
        cost: what it adds to the model, the task head not counted.
        runs: its runs' directories.
        reason: why it failed.
    """

    number: int
    state: str
    score: float | None
    axes: dict[str, Any]
    method: dict[str, Any]
    cost: int
    runs: tuple[str, ...]
    reason: str = ""


@dataclass(frozen=True)
class Value:
    """How the points with one value of an axis did."""

    axis: str
    value: str
    points: int
    mean: float
    best: float


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        task, metric, greater_is_better: what was searched for.
        budget: the largest number of parameters that a method may add.
        tried: every point that was trained, in their order.
        refused: how many points were drawn that were too large or known already.
        importance: axis -> its part in the differences between scores, in all 1; empty where too few points say
            nothing. By PED-ANOVA (Watanabe et al. 2023), as Optuna has it.
        values: how the complete points with each value of an axis did.
    """

    path: Path
    task: str
    metric: str
    greater_is_better: bool
    budget: int
    trials: int
    tried: tuple[Tried, ...]
    refused: int
    importance: dict[str, float]
    values: tuple[Value, ...]

    def best(self, count: int = SHOWN) -> list[Tried]:
        """Return the best complete points."""
        complete = [one for one in self.tried if one.score is not None]
        return sorted(complete, key=lambda one: one.score or 0.0, reverse=self.greater_is_better)[:count]

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON-ready data."""
        data = asdict(self)
        del data["path"]
        return data


def read_result(folder: Path) -> SearchResult:
    """Return what ``search.json`` says.

    Raises:
        RunError: there is none, or it is damaged.
    """
    path = folder / RESULT
    try:
        data = from_json(path.read_text(encoding="utf-8"))
        if not isinstance(data, dict):
            raise TypeError(f"expected an object, found {type(data).__name__}")
        return TypeAdapter(SearchResult).validate_python({**data, "path": folder})
    except FileNotFoundError:
        raise RunError(f"{str(folder)!r} has no {RESULT}: its search has found nothing yet.") from None
    except ValidationError as error:
        first = error.errors()[0]
        said = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise RunError(f"{str(path)!r} is damaged ({said}); `unipetl search {folder}` writes it again.") from error
    except (OSError, ValueError, TypeError) as error:
        raise RunError(f"{str(path)!r} is damaged ({error}); `unipetl search {folder}` writes it again.") from error


def conclude(study: Study, definition: Search, folder: Path, budget: int, task: Task) -> SearchResult:
    """Return what the study holds, and write it beside the runs."""
    tried = tuple(_tried(trial) for trial in memory.finished(study))
    complete = [one for one in tried if one.score is not None]
    found = SearchResult(
        path=folder,
        task=definition.task,
        metric=task.metric,
        greater_is_better=task.greater_is_better,
        budget=budget,
        trials=definition.trials,
        tried=tried,
        refused=sum(memory.REFUSED in trial.user_attrs for trial in study.trials),
        importance=importance(complete, greater_is_better=task.greater_is_better),
        values=tuple(_values(complete, greater_is_better=task.greater_is_better)),
    )
    write_json(folder / RESULT, found.to_dict())
    if complete:
        write_text(folder / BEST, _confirmation(found, definition))
    return found


def importance(complete: Sequence[Tried], *, greater_is_better: bool) -> dict[str, float]:
    """Return what part every axis has in the differences between the points' scores.

    A sampler's own parameters depend on each other; here every point has a value on every axis, "–" included.
    """
    axes = list(dict.fromkeys(name for one in complete for name in one.axes))
    choices = {name: list(dict.fromkeys(str(one.axes.get(name)) for one in complete)) for name in axes}
    varied = {name: values for name, values in choices.items() if len(values) > 1}
    scores = {one.score for one in complete}
    if len(complete) < ENOUGH or not varied or len(scores) < 2:
        return {}
    package = memory.optuna()
    flat = package.create_study(direction="maximize" if greater_is_better else "minimize")
    distributions = {name: package.distributions.CategoricalDistribution(values) for name, values in varied.items()}
    for one in complete:
        params = {name: str(one.axes.get(name)) for name in varied}
        flat.add_trial(package.trial.create_trial(params=params, distributions=distributions, value=one.score))
    evaluator = package.importance.PedAnovaImportanceEvaluator()
    found = package.importance.get_param_importances(flat, evaluator=evaluator)
    return {name: float(part) for name, part in found.items()}


def _values(complete: Sequence[Tried], *, greater_is_better: bool) -> list[Value]:
    best = max if greater_is_better else min
    scores: dict[tuple[str, str], list[float]] = {}
    for one in complete:
        for axis, value in one.axes.items():
            if one.score is not None:
                scores.setdefault((axis, str(value)), []).append(one.score)
    ordered = sorted(scores.items(), key=lambda item: item[0])
    return [Value(axis, value, len(found), mean(found), best(found)) for (axis, value), found in ordered]


def _tried(trial: FrozenTrial) -> Tried:
    said = trial.user_attrs[memory.POINT]
    states = {"COMPLETE": "complete", "PRUNED": "pruned"}
    return Tried(
        number=trial.number,
        state=states.get(trial.state.name, "failed"),
        score=trial.value if trial.state.name == "COMPLETE" else None,
        axes=dict(said["axes"]),
        method=dict(said["method"]),
        cost=int(said["cost"]),
        runs=tuple(said["runs"]),
        reason=str(trial.user_attrs.get("reason", "")),
    )


def _confirmation(found: SearchResult, definition: Search) -> str:
    """Return a comparison plan of the best points with seeds that the search has not used."""
    fresh = [
        seed for seed in range(1000, 1000 + len(definition.seeds) + CONFIRMING_SEEDS) if seed not in definition.seeds
    ]
    methods = {}
    for one in found.best(CONFIRMED):
        recipe = definition.recipe(Method.from_plain(one.method), one.axes.get("learning_rate"))
        methods[f"point {one.number}"] = {"method": one.method, "training": recipe.training}
    shared = ("model", "limit", "evaluation_limit", "options")
    data: dict[str, Any] = {
        "name": f"The best points of a search on {found.task}",
        "tasks": {definition.task: {name: getattr(definition, name) for name in shared}},
        "methods": methods,
        "seeds": fresh[:CONFIRMING_SEEDS],
    }
    plan = ComparePlan(**data)
    return yaml.safe_dump(plan.model_dump(mode="json", exclude_defaults=True), sort_keys=False, allow_unicode=True)
