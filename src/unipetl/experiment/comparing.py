"""Runs a comparison: each run in its own process, what is done is not done again, what fails is kept with its reason.

    plan.yaml                                the plan
    runs/<task>/<method>-<hash>/seed-<n>/    one directory per run, see unipetl.experiment.directory
    runs/<task>/<method>-<hash>/seed-<n>.failed.json   why a run has no result
    comparison.json, .md, .png               the result

It can be interrupted at any time and called again.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from unipetl.errors import RunError, TaskError, unknown
from unipetl.experiment.directory import RunDirectory, write_json
from unipetl.experiment.grid import Cell, ComparePlan, load_plan
from unipetl.experiment.lock import alone
from unipetl.experiment.pool import Outcome, Worker, in_workers
from unipetl.experiment.progress import Progress
from unipetl.experiment.table import Comparison, report
from unipetl.experiment.worker import Spec

PLAN = "plan.yaml"
State = Literal["done before", "started", "running", "finished", "failed"]


@dataclass(frozen=True, slots=True)
class CompareProgress:
    """Where a comparison is.

    Attributes:
        task, label, seed: the run that something happened to, and ``state`` what.
        done, failed, total: runs of the whole comparison.
        run: where that run is, while it is running.
        message: why it failed.
    """

    task: str
    label: str
    seed: int
    state: State
    done: int
    failed: int
    total: int
    run: Progress | None = None
    message: str = ""


CompareListener = Callable[[CompareProgress], None]


def compare(
    plan: ComparePlan,
    directory: str | Path,
    *,
    jobs: int = 1,
    progress: CompareListener | None = None,
    tasks: Mapping[str, str] | None = None,
    replace: bool = False,
    ray: str | None = None,
) -> Comparison:
    """Run every method of ``plan`` on every task with every seed, and put the results side by side.

    Args:
        plan: what to compare.
        directory: made if absent. Runs of the same recipe and seed that it holds are not run again. The comparison
            that it holds may get methods, tasks and seeds; what failed in it may change.
        jobs: how many runs at once; the processor's cores are shared out among them.
        progress: called from one thread at a time as things happen.
        tasks: name -> ``module:object`` for tasks that are not unipetl's.
        replace: put the plan in the place of another comparison's; no run is removed.
        ray: the address of a Ray cluster, which then makes the runs, as many at once as it has room for; None for
            processes on this machine. A run whose worker is lost is tried again.

    Returns:
        The tables, and why the runs that failed did. The same is in ``directory`` as JSON, Markdown and a picture.

    Raises:
        RunError: the directory holds something else or another comparison, another process is at work there, or
            ``jobs`` is no positive number, or no cluster answers.
        MissingPackageError: ``ray`` is given, and Ray is not installed.
        TaskError: a task with runs to make is neither unipetl's nor in ``tasks``.
        KeyboardInterrupt: after every run's process has been ended; call again to go on.
    """
    if jobs < 1:
        raise RunError(f"jobs: expected a positive number, found {jobs}.")
    if ray is not None:
        importlib.import_module("unipetl.experiment.on_ray").installed()
    folder = Path(directory)
    with alone(folder):
        there = _plan_in(folder)
        if there is not None and not replace:
            _refuse_another(plan, there, folder)
        cells = list(plan.cells())
        todo = [(cell, seed) for seed in plan.seeds for cell in cells]
        done = [_finished(run_directory(folder, cell, seed), cell, seed) for cell, seed in todo]
        waiting = [one for one, finished in zip(todo, done, strict=True) if not finished]
        _refuse_unknown_tasks((cell for cell, _ in waiting), tasks or {})
        if plan != there:  # one that a person wrote there keeps its comments
            plan.save(folder / PLAN)
        board = _Board(total=len(todo), listener=progress or _silent)
        for (cell, seed), finished in zip(todo, done, strict=True):
            if finished:
                board.tell(cell, seed, "done before")
        if waiting and ray is not None:
            _run_on_ray(waiting, folder, ray, board, tasks or {})
        elif waiting:
            _run_all(waiting, folder, min(jobs, len(waiting)), board, tasks or {})
        return report(folder, plan)


def _plan_in(folder: Path) -> ComparePlan | None:
    """Return the plan of the comparison in ``folder``; None if that is empty."""
    if (folder / PLAN).is_file():
        return load_plan(folder / PLAN, tasks=None)
    if any(not one.name.startswith(".") for one in folder.iterdir()):
        raise RunError(f"{str(folder)!r} is not empty and holds no comparison; choose another directory.")
    return None


def _refuse_another(plan: ComparePlan, there: ComparePlan, folder: Path) -> None:
    """Refuse a plan that would leave out runs of the comparison in ``folder``, other than those that failed."""
    kept = {run_directory(folder, cell, seed) for cell in plan.cells() for seed in plan.seeds}
    runs = [(cell, seed, run_directory(folder, cell, seed)) for cell in there.cells() for seed in there.seeds]
    lost = [(cell, seed) for cell, seed, run in runs if run not in kept and not failure_file(run).is_file()]
    if not lost:
        return
    cell, seed = lost[0]
    raise RunError(
        f"{str(folder)!r} holds another comparison ({there.name or PLAN}: {len(there.methods)} methods on "
        f"{', '.join(there.tasks)}); {len(lost)} of its {len(runs)} runs are not in this plan with the same settings, "
        f"the first is {cell.title}, {cell.label}, seed {seed}. Choose another directory, add to the plan that is "
        "there, or put this one in its place (replace=True; on the command line --replace)."
    )


def _refuse_unknown_tasks(cells: Iterable[Cell], tasks: Mapping[str, str]) -> None:
    from unipetl.tasks import TASKS  # brings transformers, which a comparison that is done does not need

    known = [*(task.name for task in TASKS), *tasks]
    for cell in cells:
        if cell.recipe.task not in known:
            place = "" if cell.task == cell.recipe.task else f"{cell.task}: "
            raise TaskError(place + unknown("task", cell.recipe.task, known))


def run_directory(folder: Path, cell: Cell, seed: int) -> Path:
    """Return the directory of one run of a comparison."""
    return folder / cell.folder() / f"seed-{seed}"


def failure_file(run: Path) -> Path:
    """Return the file beside a run's directory that says why it has no result."""
    return run.with_name(f"{run.name}.failed.json")


def _finished(run: Path, cell: Cell, seed: int) -> bool:
    """Say whether the run is done; one whose files are damaged fails when it is tried again, and says why."""
    try:
        files = RunDirectory(run)
        found, found_seed = files.read_recipe()
        return files.result() is not None and found.hash() == cell.recipe.hash() and found_seed == seed
    except RunError:
        return False


def _silent(event: CompareProgress) -> None:
    del event


class _Board:
    """Counts what is done and tells the listener, one event at a time."""

    def __init__(self, total: int, listener: CompareListener) -> None:
        self.total, self.listener = total, listener
        self.done = self.failed = 0
        self.lock = threading.Lock()

    def tell(self, cell: Cell, seed: int, state: State, run: Progress | None = None, message: str = "") -> None:
        with self.lock:
            self.done += state in ("done before", "finished")
            self.failed += state == "failed"
            event = CompareProgress(
                cell.title, cell.label, seed, state, self.done, self.failed, self.total, run, message
            )
            self.listener(event)


def _run_all(waiting: list[tuple[Cell, int]], folder: Path, jobs: int, board: _Board, tasks: Mapping[str, str]) -> None:
    queue = iter(waiting)
    lock = threading.Lock()

    def work(worker: Worker) -> None:
        while not worker.stopped:
            with lock:
                following = next(queue, None)
            if following is None:
                return
            cell, seed = following
            path = _specify(cell, seed, folder, tasks)
            board.tell(cell, seed, "started")
            outcome = worker.run(path, lambda inner: board.tell(cell, seed, "running", inner))  # noqa: B023 - called here
            if not worker.stopped:
                _settle(cell, seed, folder, outcome, board)

    in_workers(jobs, work)


def _run_on_ray(
    waiting: list[tuple[Cell, int]], folder: Path, address: str, board: _Board, tasks: Mapping[str, str]
) -> None:
    from unipetl.experiment.on_ray import run_all

    specs = {}
    for number, (cell, seed) in enumerate(waiting):
        specs[number] = _specify(cell, seed, folder, tasks)
        board.tell(cell, seed, "started")
    run_all(specs, address, lambda number, outcome: _settle(*waiting[number], folder, outcome, board))


def _specify(cell: Cell, seed: int, folder: Path, tasks: Mapping[str, str]) -> Path:
    """Write what is to run beside the run's directory."""
    run = run_directory(folder, cell, seed)
    run.parent.mkdir(parents=True, exist_ok=True)
    errors = run.with_name(f"{run.name}.stderr.txt")
    path = run.with_name(f"{run.name}.spec.json")
    write_json(path, asdict(Spec(cell.recipe.resolved(), seed, str(run), str(errors), tasks.get(cell.recipe.task))))
    return path


def _settle(cell: Cell, seed: int, folder: Path, outcome: Outcome, board: _Board) -> None:
    """Keep how a run ended."""
    run = run_directory(folder, cell, seed)
    failure, errors = failure_file(run), run.with_name(f"{run.name}.stderr.txt")
    run.with_name(f"{run.name}.spec.json").unlink(missing_ok=True)
    if errors.is_file() and not errors.stat().st_size:
        errors.unlink()
    if outcome.error is None:
        failure.unlink(missing_ok=True)
        board.tell(cell, seed, "finished")
        return
    write_json(failure, _failure(outcome, errors))
    board.tell(cell, seed, "failed", message=f"{outcome.error}: {outcome.message}")


def _failure(outcome: Outcome, errors: Path) -> dict[str, str]:
    said = errors.read_text(encoding="utf-8", errors="replace")[-2000:] if errors.is_file() else ""
    return {"error": outcome.error or "", "message": outcome.message, "trace": outcome.trace, "stderr": said}
