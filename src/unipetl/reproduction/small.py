"""The small study: the paper's design of experiments on models and data that fit two processor cores.

Two stages, each a comparison that can be interrupted and goes on where it stopped::

    DIR/rates/<task>*/     every method at every learning rate that is tried, judged on development examples
    DIR/study/             every method at its best rate on every task with every seed, judged on the test examples
    DIR/claims.md, .json   what the study says of each of the paper's claims, see unipetl.reproduction.claims

Sizes are solved so that all methods of a budget train about the same number of parameters.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unipetl.errors import RunError
from unipetl.experiment.budget import fill
from unipetl.experiment.comparing import CompareListener, compare
from unipetl.experiment.grid import ComparePlan, load_plan
from unipetl.experiment.lock import alone
from unipetl.metrics.packages import need
from unipetl.reproduction.rates import BETWEEN, PLAN, RATES, Tried, find, label_of
from unipetl.reproduction.small_methods import METHODS, SHARES, SmallMethod
from unipetl.reproduction.small_tasks import SmallTask

if TYPE_CHECKING:
    from torch import nn

SEEDS = (0, 1, 2, 3, 4)
QUICK_SEEDS = (0, 1)
#: The seeds that learning rates are chosen with; none of the study's.
TUNING_SEEDS = (100, 101, 102)
QUICK_TUNING_SEEDS = TUNING_SEEDS[:1]
TRAINING: dict[str, Any] = {
    "num_train_epochs": 1,
    "per_device_eval_batch_size": 64,
    "lr_scheduler_type": "linear",
    "warmup_steps": 0.1,
    "logging_steps": 25,
    "save_strategy": "no",
    "use_cpu": True,
}
STUDY = "study"
Sizes = dict[str, dict[str, str]]  # task -> label -> notation with its size
Rates = dict[str, dict[str, float]]  # task -> label -> learning rate


@dataclass(frozen=True)
class Study:
    """A small study, before it runs.

    Attributes:
        tasks, methods, seeds: what is compared.
        notations: task -> label -> the method, its size solved on the task's model.
        name: for people.
        tuning_seeds: what each learning rate is tried with.
    """

    tasks: tuple[SmallTask, ...]
    methods: tuple[SmallMethod, ...]
    seeds: tuple[int, ...]
    notations: Sizes
    name: str = "Small study"
    tuning_seeds: tuple[int, ...] = TUNING_SEEDS

    def first_rates(self, task: SmallTask) -> dict[str, Sequence[float]]:
        """Return the learning rates that every method is tried at in any case."""
        return {one.label: one.tried(task.kind) for one in self.methods}

    def rates_plan(self, task: SmallTask, rates: Tried | None = None) -> ComparePlan:
        """Return the comparison of methods at learning rates, the first ones if none are named."""
        methods: dict[str, Any] = {
            label_of(label, rate): {
                "method": self.notations[task.name][label],
                "training": {"learning_rate": rate},
            }
            for label, tried in (rates or self.first_rates(task)).items()
            for rate in tried
        }
        tasks: dict[str, Any] = {task.name: task.part(tuning=True)}
        return ComparePlan(
            name=f"{self.name}: learning rates on {task.name}",
            tasks=tasks,
            methods=methods,
            seeds=self.tuning_seeds,
            training=TRAINING,
        )

    def plan(self, rates: Rates) -> ComparePlan:
        """Return the study itself, every method at the learning rate that was found for it."""
        tasks: dict[str, Any] = {
            task.name: {
                **task.part(tuning=False),
                "methods": {
                    one.label: {
                        "method": self.notations[task.name][one.label],
                        "training": {"learning_rate": rates[task.name][one.label]},
                    }
                    for one in self.methods
                },
            }
            for task in self.tasks
        }
        first = self.tasks[0].name
        methods: dict[str, Any] = {one.label: self.notations[first][one.label] for one in self.methods}
        return ComparePlan(name=self.name, tasks=tasks, methods=methods, seeds=self.seeds, training=TRAINING)

    def runs(self) -> int:
        """Return how many runs both stages have at least; rates that prove to be at an end bring more."""
        tried = sum(len(one.tried(task.kind)) for task in self.tasks for one in self.methods)
        return tried * len(self.tuning_seeds) + len(self.tasks) * len(self.methods) * len(self.seeds)


def small_study(
    tasks: Sequence[SmallTask],
    *,
    methods: Sequence[SmallMethod] = METHODS,
    seeds: Sequence[int] = SEEDS,
    name: str = "Small study",
    tuning_seeds: Sequence[int] = TUNING_SEEDS,
) -> Study:
    """Return the study, every size solved on the model of its task.

    Raises:
        DownloadError: an embedded task's model or data must be fetched and cannot be.
        TaskError: a task cannot be made ready, for example because of its files.
        RunError: a seed would choose the learning rates and be judged with them.
    """
    both = sorted(set(seeds) & set(tuning_seeds))
    if both:
        raise RunError(f"seed {both[0]}: learning rates are chosen with it, so it cannot judge them; name another one.")
    notations: Sizes = {}
    for task in tasks:
        model = _model(task)
        whole = sum(one.numel() for one in model.parameters())
        notations[task.name] = {one.label: _notation(one, task, model, whole) for one in methods}
    return Study(tuple(tasks), tuple(methods), tuple(seeds), notations, name, tuple(tuning_seeds))


def _notation(one: SmallMethod, task: SmallTask, model: nn.Module, whole: int) -> str:
    if one.size is None:
        return one.notation(task.kind)
    budget = round(SHARES[task.kind].of(one.size) * whole)
    return fill(one.notation(task.kind), model, budget, largest=one.largest)


def _model(task: SmallTask) -> nn.Module:
    from unipetl.tasks import get_task

    chosen = get_task(task.name).configure(task.options)
    return chosen.prepare(model=task.model, **chosen.few()).model


def run_small(
    study: Study,
    directory: str | Path,
    *,
    jobs: int = 1,
    progress: CompareListener | None = None,
    stage: Callable[[str], None] | None = None,
) -> Rates:
    """Run what is missing of a study, both stages; return the learning rates that the first one found.

    Args:
        study: the study.
        directory: of the study; what it holds of it is not run again.
        jobs: how many runs at once.
        progress: called as runs go on.
        stage: called with a line about each stage before it starts.

    Raises:
        RunError: the directory holds another study, another process is at work there, or no rate worked for a method.
        MissingPackageError: scipy, which the verdicts need, is not installed.
        KeyboardInterrupt: call again to go on.
    """
    need("scipy.stats", "scipy", "intervals over seeds")
    folder, tell = Path(directory), stage or _silent
    rates: Rates = {}
    with alone(folder):
        _refuse_another(study, folder)
        for task in study.tasks:

            def run(plan: ComparePlan, place: Path, name: str = task.name) -> None:
                tell(f"learning rates on {name}: {len(plan.methods) * len(plan.seeds)} runs")
                compare(plan, place, jobs=jobs, progress=progress, replace=True)

            rates[task.name] = find(folder, task.name, study.first_rates(task), partial(study.rates_plan, task), run)
        plan = study.plan(rates)
        tell(f"the study: {len(study.methods)} methods, {len(study.tasks)} tasks, {len(study.seeds)} seeds")
        compare(plan, folder / STUDY, jobs=jobs, progress=progress, replace=True)
    return rates


def _refuse_another(study: Study, folder: Path) -> None:
    """Refuse a directory whose plans have methods, sizes, examples or seeds that this study has not.

    Learning rates do not count: which are widened and found changes when a run that failed has a result at last, or
    when more seeds are tried. Then a plan takes another's place, and no run is removed.
    """
    any_rate = {task.name: {one.label: 1.0 for one in study.methods} for task in study.tasks}
    plans = {Path(RATES) / task.name: study.rates_plan(task) for task in study.tasks} | {
        Path(STUDY): study.plan(any_rate)
    }
    for place, plan in plans.items():
        if (folder / place / PLAN).is_file():
            there = load_plan(folder / place / PLAN, tasks=None)
            if not (_without_rates(there) <= _without_rates(plan) and set(there.seeds) <= set(plan.seeds)):
                seeds = ", ".join(map(str, there.seeds))
                raise RunError(
                    f"{str(folder)!r} holds another study: {str(place / PLAN)!r} there has methods, sizes, examples or "
                    f"seeds (it has {seeds}) that this one has not. Choose another directory (--output), or ask for "
                    "all that is there and more."
                )


def _without_rates(plan: ComparePlan) -> set[str]:
    cells = [(cell.label.partition(BETWEEN)[0], cell.recipe.model_dump(mode="json")) for cell in plan.cells()]
    for _, recipe in cells:
        recipe["training"].pop("learning_rate", None)
        del recipe["seeds"], recipe["name"]  # the name has the rate in it
    return {json.dumps(one, sort_keys=True) for one in cells}


def _silent(line: str) -> None:
    del line
