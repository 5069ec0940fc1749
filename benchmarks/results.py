"""A file of results, and how to ask it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import summary
from benchmarks.rounds import Spread
from benchmarks.summary import Record


class Results:
    """What a run measured."""

    def __init__(self, found: dict[str, Any]) -> None:
        self.found = found
        self.clock: str = found["clock"]
        self.environment: dict[str, Any] = found["environment"]
        self.libraries: dict[str, Any] = found["libraries"]

    @classmethod
    def read(cls, path: Path) -> Results:
        return cls(json.loads(path.read_text(encoding="utf-8")))

    def records(self, part: str, **wanted: Any) -> Iterator[Record]:
        """Return the records of a part for which all of ``wanted`` (kind, shape, library, changes) is so."""
        for record in self.found["records"]:
            if record["part"] == part and all(record[key] == value for key, value in wanted.items()):
                yield record

    def record(self, part: str, **wanted: Any) -> Record | None:
        return next(self.records(part, **wanted), None)

    def ratio(self, part: str, name: str, library: str = "unipetl", **wanted: Any) -> Spread | None:
        """Return the ratio of ``name`` to its reference in the first such record; None where it was not measured."""
        record = self.record(part, library=library, **wanted)
        return summary.to_reference(record, self.clock).get(name) if record else None

    def seconds(self, part: str, name: str, library: str = "unipetl", **wanted: Any) -> Spread | None:
        record = self.record(part, library=library, **wanted)
        return summary.seconds(record, self.clock).get(name) if record else None

    def fact(self, part: str, name: str, fact: str, library: str = "unipetl", **wanted: Any) -> float | None:
        record = self.record(part, library=library, **wanted)
        return record["facts"].get(name, {}).get(fact) if record else None

    def against(self, part: str, name: str, peer: str, **wanted: Any) -> Spread | None:
        """Return our seconds over a peer's for the same method; None where either was not measured."""
        ours = self.record(part, library="unipetl", **wanted)
        theirs = self.record(part, library=peer, **wanted)
        if not ours or not theirs:
            return None
        return summary.against(ours, theirs, name, name, self.clock)
