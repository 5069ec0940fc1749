"""What a batch costs in which every row has an attachment of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.clock import Seconds, timed
from benchmarks.kinds.many import Many
from benchmarks.libraries import Library
from benchmarks.rounds import order
from benchmarks.shapes import Shape
from benchmarks.variants import tried

ONE, EACH = " | one for all rows", " | another for each row"


class Route(Many):
    """The same batch with one attachment for all rows, and with another for each."""

    def __init__(self, of: Shape, library: Library, methods: Sequence[str], device: str) -> None:
        super().__init__(of, library, device, of.rows)
        self.bare = self.copy()
        for method in methods:
            if method in library.METHODS:
                model = self.copy()
                with tried(self.problems, method):
                    model = library.attach(model, method)
                    library.attach_more(model, method, self.names)
                    model.eval()
                    self.each(model)
                    self.one(model)
                    self.models[method] = model

    @torch.no_grad()
    def one(self, model: Any) -> None:
        self.library.switch(model, self.names[0])
        model(**self.inputs)

    @torch.no_grad()
    def each(self, model: Any) -> None:
        self.library.routed(model, self.inputs, self.names)

    @torch.no_grad()
    def plain(self) -> None:
        self.bare(**self.inputs)

    def round(self, number: int) -> list[tuple[str, Seconds]]:
        found = []
        for name in order(
            (self.reference, *(method + way for method in self.models for way in (ONE, EACH))), self.reference, number
        ):
            if name == self.reference:
                found.append((name, timed(self.plain, self.device)))
            else:
                method, _, _ = name.partition(" | ")
                way = self.each if name.endswith(EACH) else self.one
                found.append((name, timed(lambda m=self.models[method], way=way: way(m), self.device)))
        return found
