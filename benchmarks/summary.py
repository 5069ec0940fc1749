"""What a record says: the ratios of each round to the reference, and their quartiles."""

from __future__ import annotations

from typing import Any

from benchmarks import rounds
from benchmarks.rounds import Spread, Timing

OPTIMIZER = " | optimizer"  # behind a name: the seconds of the optimizer's step alone
COMPILED = " | compiled"  # behind a name: the same, compiled

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


def against(ours: Record, theirs: Record, mine: str, other: str, clock: str) -> Spread | None:
    """Return our seconds over theirs, round by round; None where no round has both."""
    return rounds.between(timings(ours, clock), timings(theirs, clock), mine, other)


def relative_gains(record: Record, clock: str) -> dict[str, Spread]:
    """Return how much faster each becomes by compiling, over how much faster the reference does, round by round."""
    kept = []
    for one in timings(record, clock):
        mean = rounds.means(one)
        gains = {name: mean[name] / mean[name + COMPILED] for name in mean if name + COMPILED in mean}
        if record["reference"] in gains:
            kept.append({name: gain / gains[record["reference"]] for name, gain in gains.items()})
    return rounds.spreads(kept)


def own_gain(record: Record, clock: str) -> Spread | None:
    """Return how much faster the reference becomes by compiling."""
    name = record["reference"]
    kept = [rounds.means(one) for one in timings(record, clock)]
    gains = [mean[name] / mean[name + COMPILED] for mean in kept if name in mean and name + COMPILED in mean]
    return Spread.of(gains) if gains else None
