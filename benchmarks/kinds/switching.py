"""What many attachments on one model cost: switching among them, and those that are not active."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.clock import Seconds, timed
from benchmarks.kinds.many import Many
from benchmarks.libraries import Library
from benchmarks.references import BARE
from benchmarks.rounds import order
from benchmarks.shapes import Shape
from benchmarks.variants import tried

COUNT = 16
SWITCH, FORWARD, MANY = " | switch", " | forward, one attached", f" | forward, {COUNT} attached, one active"


class Switch(Many):
    """A bare forward pass, one with one attachment, and one with one of many active; and the switch itself."""

    def __init__(self, of: Shape, library: Library, methods: Sequence[str], device: str) -> None:
        super().__init__(of, library, device, COUNT)
        self.models[BARE] = self.copy()
        self.many: dict[str, Any] = {}
        for method in methods:
            if method in library.METHODS:
                with tried(self.problems, method):
                    one, many = (library.attach(self.copy(), method) for _ in range(2))
                    library.attach_more(many, method, self.names)
                    library.switch(many, self.names[0])
                    self.models |= {method + FORWARD: one, method + MANY: many}
                    self.many[method + SWITCH] = many
        for model in self.models.values():
            model.eval()

    @torch.no_grad()
    def forward(self, model: Any) -> None:
        model(**self.inputs)

    def round(self, number: int) -> list[tuple[str, Seconds]]:
        found = []
        for name in order((*self.models, *self.many), BARE, number):
            if name in self.many:
                model, to = self.many[name], self.names[number % COUNT]
                found.append((name, timed(lambda m=model, to=to: self.library.switch(m, to), self.device)))
            else:
                found.append((name, timed(lambda m=self.models[name]: self.forward(m), self.device)))
        return found
