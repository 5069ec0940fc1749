"""Searches the design space: points are drawn, sized to the budget, and trained, each in a directory of its own.

    search.yaml                                the search
    search.db                                  the study, unless it is kept elsewhere
    runs/<task>/<point>-<hash>/seed-<n>/       one directory per run, see unipetl.experiment.directory
    search.json, best.yaml                     the result, and a comparison plan that confirms the best points

It can be interrupted at any time and called again. A run's directory follows from its recipe, so a point that is
drawn again is not trained again, and one that was interrupted goes on from its last checkpoint.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any, Literal

from torch import nn

from unipetl.errors import PlanError, RunError, TaskError
from unipetl.experiment.directory import RunDirectory, write_json
from unipetl.experiment.grid import Cell
from unipetl.experiment.lock import alone
from unipetl.experiment.pool import Outcome, Worker, in_workers
from unipetl.experiment.progress import Progress
from unipetl.experiment.recipe import Recipe
from unipetl.experiment.worker import Spec
from unipetl.search import study as memory
from unipetl.search.definition import Search, load_search, parameters
from unipetl.search.result import SearchResult, conclude
from unipetl.search.space import Choices, Point, sized

if TYPE_CHECKING:
    from optuna import Study, Trial

    from unipetl.tasks import Task

DEFINITION = "search.yaml"
#: So many points in a row that are known or too large, and the space is taken to hold no other.
EXHAUSTED = 100
State = Literal["started", "running", "finished", "pruned", "failed"]


@dataclass(frozen=True, slots=True)
class SearchProgress:
    """Where a search is: what happened to which trial, and how many are done of how many."""

    number: int
    state: State
    done: int
    total: int
    label: str
    score: float | None = None
    run: Progress | None = None
    message: str = ""


Listener = Callable[[SearchProgress], None]


def search(
    definition: Search,
    directory: str | Path,
    *,
    jobs: int = 1,
    storage: str | None = None,
    progress: Listener | None = None,
    tasks: Mapping[str, str] | None = None,
) -> SearchResult:
    """Try ``definition.trials`` points of the design space under its budget.

    Args:
        definition: what to search.
        directory: made if absent. What it holds of the same search is gone on with; more trials add to it.
        jobs: how many runs at once, each in a process of its own; the processor's cores are shared out among them.
        storage: any storage of Optuna, by its URL; None for an SQLite file in the directory. Machines that share a
            storage share the study, each with a directory of its own.
        progress: called from one thread at a time as things happen.
        tasks: name -> ``module:object`` for tasks that are not unipetl's.

    Returns:
        The trials, the best points, and which axes matter. The same is in ``directory`` as JSON.

    Raises:
        MissingPackageError: Optuna is not installed.
        RunError: the directory holds something else, another process is at work there, the storage cannot be opened,
            or no point of the space makes sense within the budget.
        TaskError: the task is unknown or cannot be prepared, or the budget is larger than its model.
        KeyboardInterrupt: after every run's process has been ended; call again to go on.
    """
    if jobs < 1:
        raise RunError(f"jobs: expected a positive number, found {jobs}.")
    memory.optuna()
    folder = Path(directory)
    with alone(folder):
        _refuse_another(definition, folder)
        task = task_of(definition, tasks or {})
        model = skeleton(definition, task)
        whole = sum(one.numel() for one in model.parameters())
        budget = parameters(definition.budget, whole)
        if budget > whole:
            raise TaskError(f"budget: {budget:,} parameters are more than the model's own {whole:,}.")
        choices = Choices(definition.space, model, budget)
        study = memory.open_study(definition, folder, storage, greater_is_better=task.greater_is_better)
        definition.save(folder / DEFINITION)
        memory.take_up(study, folder)
        work = _Searching(
            definition, folder, study, choices, model, budget, task.metric, progress or _silent, tasks or {}
        )
        try:
            if work.done < definition.trials:
                in_workers(min(jobs, definition.trials - work.done), work)
        finally:
            work.end()
            found = conclude(study, definition, folder, budget, task)
        return found


def skeleton(definition: Search, task: Task) -> nn.Module:
    """Return the task's model as shapes, for plans."""
    model: nn.Module = task.prepare(model=definition.model, **task.few()).model
    return model.to("meta")


def task_of(definition: Search, tasks: Mapping[str, str]) -> Task:
    """Return the search's task, with its options."""
    import importlib

    from unipetl.tasks import get_task

    if definition.task in tasks:
        module, _, name = tasks[definition.task].partition(":")
        found: Task = getattr(importlib.import_module(module), name)
    else:
        found = get_task(definition.task)
    return found.configure(definition.options)


def _refuse_another(definition: Search, folder: Path) -> None:
    if (folder / DEFINITION).is_file():
        there = load_search(folder / DEFINITION, tasks=None)
        if there.hash() != definition.hash():
            before, after = there.model_dump(mode="json"), definition.model_dump(mode="json")
            differ = [name for name in before if before[name] != after[name] and name not in ("trials", "name")]
            raise RunError(
                f"{str(folder)!r} holds another search (it differs in {', '.join(differ)}); choose another directory."
            )
    elif any(not one.name.startswith(".") for one in folder.iterdir()):
        raise RunError(f"{str(folder)!r} is not empty and holds no search; choose another directory.")


def _silent(event: SearchProgress) -> None:
    del event


@dataclass
class _Trying:
    """A trial at work: its point as a recipe, and how its first run was judged so far."""

    trial: Trial
    recipe: Recipe
    label: str
    judged: int = 0
    pruned: bool = False


@dataclass
class _Searching:
    definition: Search
    folder: Path
    study: Study
    choices: Choices
    model: nn.Module
    budget: int
    metric: str
    listener: Listener
    tasks: Mapping[str, str]
    lock: threading.RLock = field(default_factory=threading.RLock)
    running: dict[int, Trial] = field(default_factory=dict)
    known: dict[str, float | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for trial in memory.finished(self.study):
            self.known[trial.user_attrs[memory.POINT]["recipe"]] = trial.value
        self.done = len(memory.finished(self.study))

    def __call__(self, worker: Worker) -> None:
        """Try points until there are enough, or the worker is stopped."""
        while not worker.stopped:
            with self.lock:
                trying = self._next() if self.done + len(self.running) < self.definition.trials else None
            if trying is None:
                return
            self._train(worker, trying)

    def end(self) -> None:
        """Mark what is still running as interrupted."""
        for number in list(self.running):
            memory.interrupt(self.study, number)
        self.running.clear()

    def _next(self) -> _Trying | None:
        """Return a new point to train; None if none is found."""
        for _ in range(EXHAUSTED):
            trial = self.study.ask()
            trial.set_user_attr(memory.FOLDER, str(self.folder.resolve()))
            point = self.choices.draw(trial.suggest_categorical)
            found = self._sized(point)
            if found is None:
                self._refuse(trial, f"its smallest size is larger than {self.budget:,} parameters")
                continue
            method, cost = found
            recipe = self.definition.recipe(method, point.learning_rate)
            if recipe.hash() in self.known:
                self._refuse(trial, "it is known", self.known[recipe.hash()])
                continue
            self.known[recipe.hash()] = None
            trying = _Trying(trial, recipe, label_of(point))
            runs = [self._folder(trying, seed).relative_to(self.folder).as_posix() for seed in self.definition.seeds]
            said = {"recipe": recipe.hash(), "axes": point.axes, "method": method.plain(), "cost": cost, "runs": runs}
            trial.set_user_attr(memory.POINT, said)
            self.running[trial.number] = trial
            return trying
        return None

    def _sized(self, point: Point) -> Any:
        try:
            return sized(point, self.model, self.budget)
        except PlanError:
            return None

    def _refuse(self, trial: Trial, why: str, score: float | None = None) -> None:
        """End a trial that is not trained, so that the sampler still learns from it."""
        from optuna.trial import TrialState

        trial.set_user_attr(memory.REFUSED, why)
        self.study.tell(trial, score, state=TrialState.PRUNED if score is None else None)

    def _folder(self, trying: _Trying, seed: int) -> Path:
        return self.folder / Cell(self.definition.task, trying.label, trying.recipe).folder() / f"seed-{seed}"

    def _train(self, worker: Worker, trying: _Trying) -> None:
        """Run a point with every seed, and tell the study."""
        scores: list[float] = []
        self._say(trying, "started")
        for seed in self.definition.seeds:
            run = self._folder(trying, seed)
            outcome = self._run(worker, trying, seed, run, first=seed == self.definition.seeds[0])
            if worker.stopped:
                return  # the trial stays among the running ones, which are interrupted
            if trying.pruned:
                self._tell(trying, "pruned")
                return
            result = RunDirectory(run).result() if outcome.error is None else None
            if result is None:
                self._tell(trying, "failed", message=f"{outcome.error}: {outcome.message}")
                return
            scores.append(result.score)
        if all(map(math.isfinite, scores)):
            self._tell(trying, "finished", mean(scores))
        else:
            self._tell(trying, "failed", message="its score is not a number; the training diverged")

    def _run(self, worker: Worker, trying: _Trying, seed: int, run: Path, *, first: bool) -> Outcome:
        run.parent.mkdir(parents=True, exist_ok=True)
        spec, errors = run.with_name(f"{run.name}.spec.json"), run.with_name(f"{run.name}.stderr.txt")
        task = self.tasks.get(self.definition.task)
        write_json(spec, asdict(Spec(trying.recipe.resolved(), seed, str(run), str(errors), task)))

        def listen(inner: Progress) -> None:
            self._say(trying, "running", run=inner)
            judged = inner.values.get(f"eval_{self.metric}")
            if first and judged is not None and not trying.pruned:
                with self.lock:
                    trying.judged += 1
                    trying.trial.report(judged, trying.judged)
                    trying.pruned = trying.trial.should_prune()
                if trying.pruned:
                    worker.cancel()

        outcome = worker.run(spec, listen)
        if not worker.stopped:
            spec.unlink(missing_ok=True)
            if errors.is_file() and not errors.stat().st_size:
                errors.unlink()
        return outcome

    def _tell(self, trying: _Trying, state: State, score: float | None = None, message: str = "") -> None:
        from optuna.trial import TrialState

        with self.lock:
            if message:
                trying.trial.set_user_attr("reason", message)
            if score is not None:
                self.study.tell(trying.trial, score)
            else:
                self.study.tell(trying.trial, state=TrialState.PRUNED if state == "pruned" else TrialState.FAIL)
            self.known[trying.recipe.hash()] = score
            del self.running[trying.trial.number]
            self.done += 1
        self._say(trying, state, score=score, message=message)

    def _say(
        self,
        trying: _Trying,
        state: State,
        *,
        score: float | None = None,
        run: Progress | None = None,
        message: str = "",
    ) -> None:
        with self.lock:
            total = self.definition.trials
            number = trying.trial.number
            self.listener(SearchProgress(number, state, self.done, total, trying.label, score, run, message))


def label_of(point: Point) -> str:
    """Return a point in a few words, such as ``bottleneck parallel ffn, prefix attention.heads``."""
    return ", ".join(f"{shape.form} {shape.insertion} {shape.representation}" for shape, _ in point.parts)
