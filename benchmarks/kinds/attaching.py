"""How long attaching to a frozen model takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.clock import Seconds, timed
from benchmarks.copies import share
from benchmarks.libraries import Library
from benchmarks.rounds import shuffled
from benchmarks.shapes import Shape, build
from benchmarks.variants import tried


class Attach:
    """Every method is attached to a new copy in every round; there is nothing to compare it with."""

    reference = ""

    def __init__(self, of: Shape, library: Library, methods: Sequence[str], device: str) -> None:
        self.library, self.device = library, device
        self.base = build(of, device)
        self.problems: dict[str, str] = {}
        self.facts: dict[str, dict[str, Any]] = {}
        self.methods = []
        for method in methods:
            if method in library.METHODS and not method.endswith("_folded"):
                with tried(self.problems, method):
                    library.attach(share(self.base), method)
                    self.methods.append(method)

    def round(self, number: int) -> list[tuple[str, Seconds]]:
        found = []
        for method in shuffled(self.methods, number):
            model = share(self.base)
            work = timed(lambda model=model, method=method: self.library.attach(model, method), self.device)
            found.append((method, work))
        return found
