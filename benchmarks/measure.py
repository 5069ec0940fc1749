"""Runs a plan: every library's worker has its turn in every round."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from benchmarks.crew import Member
from benchmarks.imports import imports
from benchmarks.plan import Step
from benchmarks.summary import Record


def measure(step: Step, members: Mapping[str, Member], rounds: int, changes: Mapping[str, Any]) -> list[Record]:
    """Return a record for every library that has something to say about the step.

    A round that nothing is kept of warms up. Workers take turns round by round, and another one begins each round.
    """
    sizes = {**changes, **step.changes}
    if step.kind == "import":
        return imports({library: member.python for library, member in members.items()}, rounds)
    records: dict[str, Record] = {}
    for library, member in members.items():
        if library in step.libraries:
            answer = member.ask("start", kind=step.kind, of=step.shape, changes=sizes, methods=list(step.methods))
            records[library] = {
                "part": step.part,
                "kind": step.kind,
                "shape": step.shape,
                "changes": sizes,
                "library": library,
                **answer,
                "rounds": [],
            }
    working = [library for library, record in records.items() if "error" not in record]
    for number in range(max(1, round(rounds * step.share)) + 1):
        begins = number % max(1, len(working))
        for library in working[begins:] + working[:begins]:
            answer = members[library].ask("round", number=number)
            if "error" in answer:
                records[library]["error"] = answer["error"]
            elif number and answer["timings"]:
                records[library]["rounds"].append(answer["timings"])
    for library in records:
        members[library].ask("end")
    return list(records.values())


def run(
    steps: Iterable[Step],
    members: Mapping[str, Member],
    rounds: int,
    changes: Mapping[str, Any],
    keep: Callable[[list[Record]], None],
) -> None:
    """Measure step by step; every step's records are kept as soon as they are there."""
    for step in steps:
        started = time.perf_counter()
        print(f"{step.part} {step.shape} {step.changes or ''}", end=" ", flush=True, file=sys.stderr)
        records = measure(step, members, rounds, changes)
        print(f"{time.perf_counter() - started:.0f} s", file=sys.stderr)
        for record in records:
            if "error" in record:
                print(f"  {record['library']}: {record['error']}", file=sys.stderr)
        keep(records)
