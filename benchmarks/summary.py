"""What a record says: the ratios of each round to the reference, and their quartiles."""

from __future__ import annotations

from typing import Any

from benchmarks import rounds
from benchmarks.rounds import Spread, Timing

OPTIMIZER = " | optimizer"  # behind a name: the seconds of the optimizer's step alone

Record = dict[str, Any]


def timings(record: Record, clock: str) -> list[list[Timing]]:
    """Return every round's times by one clock, without the optimizer's."""
    return [
        [(name, seconds[clock]) for name, seconds in one if not name.endswith(OPTIMIZER)] for one in record["rounds"]
    ]


def to_reference(record: Record, clock: str) -> dict[str, Spread]:
    """Return the ratio of everything to the record's reference."""
    return rounds.spreads([rounds.ratios(one, record["reference"]) for one in timings(record, clock)])


def seconds(record: Record, clock: str) -> dict[str, Spread]:
    """Return everything's seconds."""
    return rounds.spreads([rounds.means(one) for one in timings(record, clock)])


def optimizer(record: Record, clock: str) -> dict[str, Spread]:
    """Return the seconds of the optimizer's steps."""
    kept = [
        [(name.removesuffix(OPTIMIZER), one[clock]) for name, one in each if name.endswith(OPTIMIZER)]
        for each in record["rounds"]
    ]
    return rounds.spreads([rounds.means(one) for one in kept])


def against(ours: Record, theirs: Record, mine: str, other: str, clock: str) -> Spread:
    """Return our seconds over theirs, round by round."""
    return rounds.between(timings(ours, clock), timings(theirs, clock), mine, other)
