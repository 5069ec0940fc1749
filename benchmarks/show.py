"""Prints what a step found, for people who are changing something and want to see it."""

from __future__ import annotations

from benchmarks import summary
from benchmarks.libraries import TITLES as LIBRARIES
from benchmarks.methods import ranked, title
from benchmarks.rounds import Spread
from benchmarks.summary import Record


def spread(one: Spread | None, digits: int = 3) -> str:
    return f"{one.middle:.{digits}f} [{one.low:.{digits}f}, {one.high:.{digits}f}]" if one else ""


def show(records: list[Record], clock: str) -> None:
    for record in records:
        print(
            f"\n{LIBRARIES[record['library']]}, {record['part']}, {record['shape']} {record['changes'] or ''}", end=""
        )
        facts = record.get("facts", {})
        if record["rounds"]:
            ratios, seconds = summary.to_reference(record, clock), summary.seconds(record, clock)
            what = f"ratio to {record['reference']}, " if ratios else ""
            print(f": {what}{clock} seconds, {len(record['rounds'])} rounds")
            for name in ranked(seconds):
                print(f"  {title(name):52} {spread(ratios.get(name)):22}  {seconds[name].middle:.4g} s")
        elif facts:
            print()
            for name in ranked(facts):
                print(f"  {title(name):52} {facts[name]}")
        for name, problem in record.get("problems", {}).items():
            print(f"  {title(name):52} - {problem}")
    print(flush=True)
