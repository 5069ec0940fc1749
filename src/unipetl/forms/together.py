"""One computation with gradients for all layers of a pass, of which every layer takes its part.

A layer that computes its part alone uses rows of a large matrix, and the gradient of some rows is a matrix as large
as the whole, mostly zeros: as many of them as there are layers. Computed together there is one.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor


class Together:
    """Holds the parts of one pass. Copies and pickles of it are empty.

    Layers under checkpoints are computed again in backward. Where the first time was with gradients, they take the
    same part again; where it was without (reentrant checkpoints), every layer goes backward by itself, and a graph that
    all share would be gone after the first: they get none.
    """

    def __init__(self) -> None:
        self.drop()

    def __reduce__(self) -> tuple[type[Together], tuple[()]]:
        """Leave the parts behind."""
        return type(self), ()

    def drop(self) -> None:
        """Forget the parts."""
        self._parts: Sequence[Tensor] = ()
        self._facts: Hashable = None
        self._taken: set[int] = set()
        self._backward = -1

    def begin(self, parameters: Sequence[Tensor], compute: Callable[[], Sequence[Tensor]]) -> None:
        """Compute the parts of a pass that begins, from ``parameters``."""
        self.drop()
        if torch._C._functorch.peek_interpreter_stack() is None:
            self._facts, self._backward, self._parts = _facts(parameters), _backward(), compute()

    def take(self, index: int, parameters: Sequence[Tensor]) -> Tensor | None:
        """Return a part; None where it belongs to another pass, as no beginning was seen, and has to be computed."""
        again = self._backward != _backward()
        if not self._parts or (index in self._taken) != again or self._facts != _facts(parameters):
            return None
        self._taken.add(index)
        return self._parts[index]


def _facts(parameters: Sequence[Tensor]) -> Hashable:
    mixed = torch.is_autocast_enabled(parameters[0].device.type)
    return mixed, *((one._version, one.data_ptr(), one.dtype) for one in parameters)


def _backward() -> int:
    """Return the number of the backward pass that is at work, or -1."""
    number: int = torch._C._current_graph_task_id()
    return number
