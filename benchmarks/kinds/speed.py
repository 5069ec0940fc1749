"""Forward passes, training steps and generation, each beside its floor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.clock import Seconds, timed
from benchmarks.libraries import Library
from benchmarks.references import BARE, FLOOR, FULL, HEAD
from benchmarks.rounds import order
from benchmarks.shapes import Shape, batch, prompt
from benchmarks.summary import OPTIMIZER
from benchmarks.variants import make, optimizer


class Speed(ABC):
    """What the three have in common: models that take turns at one piece of work."""

    reference = BARE
    references: tuple[str, ...] = (BARE,)

    def __init__(self, of: Shape, library: Library, methods: Sequence[str], device: str) -> None:
        self.device, self.shape = device, of
        self.variants = make(of, library, methods, self.references, device)
        self.inputs = self.prepare()
        self.variants.try_all(self.work, self.reference)
        self.facts: dict[str, dict[str, Any]] = {
            name: {"trained": trained} for name, trained in self.variants.trained().items()
        }

    @property
    def problems(self) -> dict[str, str]:
        return self.variants.problems

    def prepare(self) -> dict[str, torch.Tensor]:
        return batch(self.shape, self.device)

    @abstractmethod
    def work(self, model: Any) -> None:
        """Do what is timed, once."""

    def round(self, number: int) -> list[tuple[str, Seconds]]:
        names = order(tuple(self.variants.models), self.reference, number)
        return [(name, timed(lambda name=name: self.work(self.variants.models[name]), self.device)) for name in names]


class Eval(Speed):
    """A forward pass without gradients."""

    def prepare(self) -> dict[str, torch.Tensor]:
        for model in self.variants.models.values():
            model.eval()
        inputs = super().prepare()
        if self.shape.family in ("roberta", "bert", "llama"):
            del inputs["labels"]
        return inputs

    @torch.no_grad()
    def work(self, model: Any) -> None:
        model(**self.inputs)


class Generate(Speed):
    """Greedy search that writes a fixed number of tokens."""

    def prepare(self) -> dict[str, torch.Tensor]:
        for model in self.variants.models.values():
            model.eval()
        return prompt(self.shape, self.device)

    @torch.no_grad()
    def work(self, model: Any) -> None:
        count = self.shape.new_tokens
        model.generate(**self.inputs, max_new_tokens=count, min_new_tokens=count, do_sample=False, num_beams=1)


class Train(Speed):
    """Forward, loss and backward in training mode, dropout included; the optimizer's step is timed apart.

    Methods differ in how many values an optimizer steps over, which is no cost of how they are computed.
    """

    reference = FLOOR
    references = (FLOOR, HEAD, FULL)

    def __init__(self, of: Shape, library: Library, methods: Sequence[str], device: str) -> None:
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        super().__init__(of, library, [one for one in methods if not one.endswith("_folded")], device)
        self.optimizers = {name: optimizer(model) for name, model in self.variants.models.items()}

    def prepare(self) -> dict[str, torch.Tensor]:
        for model in self.variants.models.values():
            model.train()
        return super().prepare()

    def work(self, model: Any) -> None:
        for one in model.parameters():
            one.grad = None
        model(**self.inputs).loss.backward()

    def round(self, number: int) -> list[tuple[str, Seconds]]:
        found = []
        for name in order(tuple(self.variants.models), self.reference, number):
            model = self.variants.models[name]
            found.append((name, timed(lambda model=model: self.work(model), self.device)))
            found.append((name + OPTIMIZER, timed(self.optimizers[name].step, self.device)))
            for one in model.parameters():
                one.grad = None
        return found
