"""Which learning rate each method of a small study gets: the best of those tried, with worse ones on either side.

The best is that of the highest mean over several seeds: with one seed a rate that many others would diverge at, or that
this one happened to do poorly at, decides how a method is judged.

A best rate at an end of what was tried says that the end was wrong, and the method would be judged by it. Then the
next rate beyond that end (1, 3, 10, ...) is tried as well, a few times at most::

    DIR/rates/<task>/           the rates that are tried first
    DIR/rates/<task>-wider-1/   one more for each method whose best is at an end; -2 and so on likewise
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean

from unipetl.errors import RunError
from unipetl.experiment.directory import result_if_sound
from unipetl.experiment.divergence import diverged
from unipetl.experiment.grid import ComparePlan, load_plan
from unipetl.experiment.table import finite

RATES = "rates"
PLAN = "plan.yaml"
#: How often rates are added at most.
WIDENINGS = 3
BETWEEN = " @ "

Scores = dict[str, dict[float, float]]  # label -> rate -> score, higher is better
Tried = Mapping[str, Sequence[float]]  # label -> rates


def find(
    folder: Path,
    task: str,
    first: Tried,
    plan: Callable[[Tried], ComparePlan],
    run: Callable[[ComparePlan, Path], None],
) -> dict[str, float]:
    """Run what is missing of a task's search, and return each method's best rate.

    The best is that of the highest mean score on the development examples, over the plan's seeds; of equal ones the
    smallest rate. A rate at which one seed has no result, or diverged, is none.

    Args:
        folder: the study's.
        task: its name.
        first: what is tried first.
        plan: makes the comparison of some methods at some rates.
        run: runs one in a directory.

    Raises:
        RunError: no rate has results of every seed for a method.
    """
    wanted, found = first, Scores()
    planned: dict[str, list[float]] = {label: [] for label in first}
    for place in _places(folder, task):
        run(plan(wanted), place)
        _read(place, found)
        for label, rates in wanted.items():
            planned[label] += rates
        missing = [label for label in first if not found.get(label)]
        if missing:
            raise RunError(
                f"no learning rate worked with every seed for {', '.join(missing)} on {task}; the reasons are in "
                f"{str(place)!r}."
            )
        wanted = _next(found, planned)
        if not wanted:
            break
    return {label: best(found[label]) for label in first}


def scores(folder: Path, task: str) -> Scores:
    """Return what every method scored at every rate, the mean over seeds, in the order of the rates.

    A rate without a result of every seed is left out, and so is one that played no part in the choice.
    """
    found, seeds = Scores(), seeds_of(folder, task)
    planned: dict[str, list[float]] = {}
    wanted: Tried = {}
    for place in _places(folder, task):
        there = _tried(place, seeds)
        if there is None or (planned and there != wanted):
            break  # nothing more was wanted: what lies there is of a search before, with other seeds or results
        _read(place, found)
        for label, rates in there.items():
            planned.setdefault(label, []).extend(rates)
        wanted = _next(found, planned)
    return {label: dict(sorted(rates.items())) for label, rates in found.items()}


def seeds_of(folder: Path, task: str) -> tuple[int, ...]:
    """Return the seeds that a task's rates were tried with; none if they were not."""
    plan = folder / RATES / task / PLAN
    return tuple(load_plan(plan, tasks=None).seeds) if plan.is_file() else ()


def best(found: Mapping[float, float]) -> float:
    """Return the rate with the highest score; of equal ones the smallest."""
    return min(found, key=lambda rate: (-found[rate], rate))


def beyond(found: Mapping[float, float], planned: Sequence[float]) -> float | None:
    """Return the next rate beyond an end of what was tried, if the best is there; None if it is not.

    A rate that was tried and failed is an end as well: beyond it nothing is tried.
    """
    chosen = best(found)
    if chosen == min(planned):
        return neighbour(chosen, up=False)
    return neighbour(chosen, up=True) if chosen == max(planned) else None


def at_end(found: Mapping[float, float]) -> bool:
    """Return whether the best rate has no worse one on one of its sides."""
    return best(found) in (min(found), max(found))


def neighbour(rate: float, *, up: bool) -> float:
    """Return the next number of the series ..., 0.1, 0.3, 1, 3, 10, ... that is larger or smaller."""
    exponent = math.floor(math.log10(rate) + 1e-9)
    three = round(rate / 10**exponent) >= 3
    if up:
        return float(f"1e{exponent + 1}" if three else f"3e{exponent}")
    return float(f"1e{exponent}" if three else f"3e{exponent - 1}")


def label_of(label: str, rate: float) -> str:
    """Return the name of a method at a rate in a plan."""
    return f"{label}{BETWEEN}{rate:g}"


def _next(found: Scores, planned: Tried) -> dict[str, list[float]]:
    """Return the rates to be tried next, of the methods whose best is at an end."""
    return {
        label: [rate] for label, rates in planned.items() if found.get(label) and (rate := beyond(found[label], rates))
    }


def _tried(place: Path, seeds: Sequence[int]) -> dict[str, list[float]] | None:
    """Return what a place's plan tries with these seeds; None if it has none, or another one."""
    plan = load_plan(place / PLAN, tasks=None) if (place / PLAN).is_file() else None
    if plan is None or tuple(plan.seeds) != tuple(seeds):
        return None
    found: dict[str, list[float]] = {}
    for cell in plan.cells():
        label, _, rate = cell.label.rpartition(BETWEEN)
        found.setdefault(label, []).append(float(rate))
    return found


def _places(folder: Path, task: str) -> Iterator[Path]:
    yield folder / RATES / task
    for number in range(1, WIDENINGS + 1):
        yield folder / RATES / f"{task}-wider-{number}"


def _read(place: Path, found: Scores) -> None:
    """Add what the runs of a place scored to ``found``, the mean over seeds."""
    if not (place / PLAN).is_file():
        return
    plan = load_plan(place / PLAN, tasks=None)
    for cell in plan.cells():
        label, _, rate = cell.label.rpartition(BETWEEN)
        results = [result_if_sound(place / cell.folder() / f"seed-{seed}") for seed in plan.seeds]
        reached = [one for one in results if one is not None and finite(one) and not diverged(one)]
        if len(reached) == len(plan.seeds):
            mean = fmean(one.score if one.greater_is_better else -one.score for one in reached)
            found.setdefault(label, {})[float(rate)] = mean
