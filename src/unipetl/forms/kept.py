"""A result of parameters, kept for the next call as long as nothing is trained and none of them has changed."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from unipetl.forms.recompute import is_transformed

T = TypeVar("T")


class Kept(Generic[T]):
    """Holds one result. Copies and pickles of it are empty, and threads may share it.

    A change of a parameter is seen by its version or its place in memory. One made behind autograd's back
    (``parameter.data.add_``) is not, unless whoever keeps the result drops it, as learned keys and values are dropped
    whenever a sequence begins.
    """

    def __init__(self) -> None:
        self._kept: tuple[Hashable, list[Tensor], T] | None = None

    def __reduce__(self) -> tuple[type[Kept[T]], tuple[()]]:
        """Leave the result behind."""
        return type(self), ()

    def drop(self) -> None:
        """Forget the result."""
        self._kept = None

    def get(self, parameters: Sequence[Tensor], circumstances: Hashable, compute: Callable[[], T]) -> T:
        """Return what ``compute`` gives, without calling it if nothing has changed since the last time.

        Args:
            parameters: what it is computed from.
            circumstances: whatever else it depends on.
            compute: makes the result.
        """
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or is_transformed() or not have_facts(parameters):
            return compute()
        facts = circumstances, facts_of(parameters)
        kept = self._kept
        if kept is None or kept[0] != facts:
            memory = [one.detach() for one in parameters]  # so that no other values can come to lie there
            kept = self._kept = facts, memory, compute()
        return kept[2]


def have_facts(parameters: Sequence[Tensor]) -> bool:
    """Return whether parameters have versions and places of their own."""
    return all(type(one) in (Tensor, nn.Parameter) and not one.is_inference() for one in parameters)


def facts_of(parameters: Sequence[Tensor]) -> Hashable:
    """Return what changes whenever the parameters' values do, or what is computed from them by autocast."""
    mixed = bool(parameters) and torch.is_autocast_enabled(parameters[0].device.type)
    return mixed, *((one._version, one.data_ptr(), one.dtype) for one in parameters)
