"""Prints what a step found, for people who are changing something and want to see it."""

from __future__ import annotations

from benchmarks import summary
from benchmarks.libraries import TITLES as LIBRARIES
from benchmarks.methods import TITLES as METHODS
from benchmarks.rounds import Spread
from benchmarks.summary import Record


def spread(one: Spread, digits: int = 3) -> str:
    return f"{one.middle:.{digits}f} [{one.low:.{digits}f}, {one.high:.{digits}f}]"


def show(records: list[Record], clock: str) -> None:
    for record in records:
        if record["rounds"]:
            ratios, seconds = summary.to_reference(record, clock), summary.seconds(record, clock)
            print(f"\n{LIBRARIES[record['library']]}, {record['part']}, {record['shape']}", end="")
            print(f": ratio to {record['reference']}, {len(record['rounds'])} rounds, {clock} seconds")
            for name, ratio in ratios.items():
                print(f"  {METHODS.get(name, name):36} {spread(ratio)}   {seconds[name].middle:.4g} s")
        for name, problem in record.get("problems", {}).items():
            print(f"  {METHODS.get(name, name):36} - {problem}")
