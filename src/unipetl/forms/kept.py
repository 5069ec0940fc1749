"""A result of parameters, kept for the next call as long as nothing is trained and none of them has changed."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


class Kept(Generic[T]):
    """Holds one result. Copies and pickles of it are empty.

    A change of a parameter is seen by its version or its place in memory; one made behind autograd's back
    (``parameter.data.add_``) is not, which is why what is kept is dropped whenever a sequence begins.
    """

    def __init__(self) -> None:
        self._facts: Hashable = None
        self._memory: list[Tensor] = []
        self._value: T | None = None

    def __reduce__(self) -> tuple[type[Kept[T]], tuple[()]]:
        """Leave the result behind."""
        return type(self), ()

    def drop(self) -> None:
        """Forget the result."""
        self._facts, self._memory, self._value = None, [], None

    def get(self, parameters: Sequence[Tensor], circumstances: Hashable, compute: Callable[[], T]) -> T:
        """Return what ``compute`` gives, without calling it if nothing has changed since the last time.

        Args:
            parameters: what it is computed from.
            circumstances: whatever else it depends on.
            compute: makes the result.
        """
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or any(one.is_inference() for one in parameters):
            return compute()
        mixed = bool(parameters) and torch.is_autocast_enabled(parameters[0].device.type)
        facts = (circumstances, mixed, *((one._version, one.data_ptr(), one.dtype) for one in parameters))
        if self._value is None or self._facts != facts:
            self._value, self._facts = compute(), facts
            self._memory = [one.detach() for one in parameters]  # so that no other values can come to lie there
        return self._value
