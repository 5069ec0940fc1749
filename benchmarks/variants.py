"""A shape's model with every method of a library on a copy of its own, and the references beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from benchmarks import references
from benchmarks.copies import own, share, trained
from benchmarks.libraries import Library
from benchmarks.shapes import Shape, build


@dataclass
class Variants:
    """Models by name, and why there is none where there is none."""

    base: Any
    models: dict[str, Any] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)

    def trained(self) -> dict[str, int]:
        return {name: sum(one.numel() for one in trained(model)) for name, model in self.models.items()}

    def try_all(self, work: Callable[[Any], Any], reference: str) -> None:
        """Do the work once with every model; what fails is left out, with its reason.

        Raises the reference's own error, since nothing can be measured without it.
        """
        work(self.models[reference])
        for name, model in self.models.items():
            with tried(self.problems, name):
                work(model)
        self.models = {name: model for name, model in self.models.items() if name not in self.problems}


@contextmanager
def tried(problems: dict[str, str], name: str) -> Iterator[None]:
    """Take any error of any library for a finding about ``name``, and no end."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - see above
        problems[name] = said(error)


def said(error: BaseException) -> str:
    """Return an error's kind and the first line of what it says."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:200]


def make(of: Shape, library: Library, methods: Sequence[str], wanted: Sequence[str], device: str) -> Variants:
    """Build the model once, and copies that share its weights: the references wanted, then the library's methods."""
    found = Variants(build(of, device))
    for name in wanted:
        model = share(found.base)
        problem = references.make(name, model)
        if problem:
            found.problems[name] = problem
        else:
            own(model, found.base)
            found.models[name] = model
    for name in methods:
        if name in library.METHODS:
            with tried(found.problems, name):
                found.models[name] = attached(found.base, library, name)
    return found


def attached(base: Any, library: Library, method: str) -> Any:
    """Return a copy of the base with the method attached, that trains values of its own."""
    model = library.attach(share(base), method)
    own(model, base)
    return model


def optimizer(model: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(trained(model), lr=1e-5)
