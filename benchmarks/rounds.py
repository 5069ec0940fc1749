"""Ratios to a reference that is timed again and again in the same round."""

from __future__ import annotations

import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

Timing = tuple[str, float]  # what was timed, seconds


@dataclass(frozen=True)
class Spread:
    """A median with its quartiles."""

    low: float
    middle: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return the quartiles, interpolated between values as numpy's are. Raises ValueError without a value."""
        if not values:
            raise ValueError("quartiles of nothing")
        if len(values) == 1:
            return cls(values[0], values[0], values[0], 1)
        low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(low, middle, high, len(values))


def shuffled(names: Sequence[str], number: int) -> list[str]:
    """Return the names in a round's own random order."""
    found = list(names)
    random.Random(number).shuffle(found)
    return found


def order(names: Sequence[str], reference: str, number: int, between: int = 3) -> list[str]:
    """Return the names in a round's own random order, the reference first, last, and after every ``between`` others.

    A machine speeds up and slows down within a round, so the reference has to be near everything.
    """
    others = shuffled([name for name in names if name != reference], number)
    found = [reference]
    for start in range(0, len(others), between):
        found += [*others[start : start + between], reference]
    return found


def ratios(timings: Sequence[Timing], reference: str) -> dict[str, float]:
    """Return every time over the reference's: the mean of the nearest ones before and after, by the order of timings.

    The reference's own ratio is that of its first time in the round to its last, which tells the noise. What was timed
    more than once counts with the mean of its ratios.
    """
    places = [place for place, (name, _) in enumerate(timings) if name == reference]
    if not places:
        return {}
    found: dict[str, list[float]] = {}
    for place, (name, seconds) in enumerate(timings):
        if name != reference:
            before = [timings[where][1] for where in places if where < place][-1:]
            after = [timings[where][1] for where in places if where > place][:1]
            found.setdefault(name, []).append(seconds / statistics.mean(before + after))
    result = {name: statistics.mean(values) for name, values in found.items()}
    if len(places) > 1:
        result[reference] = timings[places[0]][1] / timings[places[-1]][1]
    return result


def spreads(rounds: Sequence[Mapping[str, float]]) -> dict[str, Spread]:
    """Return the spread of each name over the rounds that have it."""
    names = dict.fromkeys(name for one in rounds for name in one)
    return {name: Spread.of([one[name] for one in rounds if name in one]) for name in names}


def means(timings: Sequence[Timing]) -> dict[str, float]:
    """Return the mean seconds of each name in one round."""
    found: dict[str, list[float]] = {}
    for name, seconds in timings:
        found.setdefault(name, []).append(seconds)
    return {name: statistics.mean(values) for name, values in found.items()}


def between(
    ours: Sequence[Sequence[Timing]], theirs: Sequence[Sequence[Timing]], mine: str, other: str
) -> Spread | None:
    """Return the spread of the seconds of ``mine`` over those of ``other``, each round of ours with the same of theirs.

    None where no round has both.
    """
    pairs = [(means(a), means(b)) for a, b in zip(ours, theirs, strict=False)]
    found = [a[mine] / b[other] for a, b in pairs if mine in a and other in b]
    return Spread.of(found) if found else None


def steady(timings: Sequence[Timing], reference: str) -> float:
    """Return the largest change of the reference from one time to the next in a round, as a ratio of at least 1."""
    values = [seconds for name, seconds in timings if name == reference]
    return max((max(a, b) / min(a, b) for a, b in pairwise(values)), default=1.0)
