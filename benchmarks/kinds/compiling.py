"""What torch.compile gains: one graph of the whole model, which a single break would refuse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.clock import Seconds, timed
from benchmarks.kinds.speed import Eval, Speed, Train
from benchmarks.libraries import Library
from benchmarks.rounds import order
from benchmarks.shapes import Shape
from benchmarks.summary import COMPILED
from benchmarks.variants import tried


def add_compiled(kind: Speed) -> dict[str, Any]:
    """Compile every model of a kind by its first call; return those that are one graph, by name."""
    config: Any = torch._dynamo.config
    config.recompile_limit = config.accumulated_recompile_limit = 1000  # models of one class share their code
    found = {}
    for name, model in kind.variants.models.items():
        compiled = torch.compile(model, fullgraph=True, dynamic=False)
        with tried(kind.problems, name + COMPILED):
            kind.work(compiled)
            found[name + COMPILED] = compiled
    return found


class _Compiled:
    def __init__(self, kind: Speed) -> None:
        self.kind = kind
        self.compiled = add_compiled(kind)
        self.reference, self.problems, self.facts = kind.reference, kind.problems, kind.facts

    def round(self, number: int) -> list[tuple[str, Seconds]]:
        models = self.kind.variants.models | self.compiled
        names = order(tuple(models), self.reference, number)
        return [(name, timed(lambda name=name: self.kind.work(models[name]), self.kind.device)) for name in names]


class CompileEval(_Compiled):
    def __init__(self, of: Shape, library: Library, methods: Sequence[str], device: str) -> None:
        super().__init__(Eval(of, library, methods, device))


class _Training(Train):
    references = (Train.reference,)


class CompileTrain(_Compiled):
    """The floor takes the bare model's place, which has nothing to train."""

    def __init__(self, of: Shape, library: Library, methods: Sequence[str], device: str) -> None:
        super().__init__(_Training(of, library, methods, device))
