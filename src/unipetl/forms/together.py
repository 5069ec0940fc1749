"""One computation with gradients for all layers of a pass, of which every layer takes its part.

A layer that computes its part alone uses rows of a large matrix, and the gradient of some rows is a matrix as large
as the whole, mostly zeros: as many of them as there are layers. Computed together there is one.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from unipetl.forms.kept import facts_of, have_facts
from unipetl.forms.recompute import is_looked_after


class Together:
    """Holds the parts of the latest pass. Copies and pickles of it are empty.

    Where somebody packs saved tensors (checkpoints, offloading), layers get none and compute alone, the first time as
    well as when they are computed again.
    """

    def __init__(self) -> None:
        self._kept: tuple[Hashable, Sequence[Tensor]] = None, ()

    def __reduce__(self) -> tuple[type[Together], tuple[()]]:
        """Leave the parts behind."""
        return type(self), ()

    def drop(self) -> None:
        """Forget the parts."""
        self._kept = None, ()

    def take(self, index: int, sources: Sequence[Tensor], sizes: Sequence[int]) -> Tensor | None:
        """Return a part; the first one that is taken computes them all. None where it is to be computed alone.

        Args:
            index: which part.
            sources: the table (l, d), the hidden layer's weight and bias, and the last one's.
            sizes: how many columns each part has.
        """
        if is_looked_after() or not have_facts(sources) or not any(one.requires_grad for one in sources):
            return None
        facts = facts_of(sources)
        if self._kept[0] != facts:
            apply: Any = _Parts.apply
            self._kept = facts, apply(*sources, tuple(sizes))
        return self._kept[1][index]


def hidden_units(table: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return the MLP's hidden units (l, width)."""
    return torch.tanh(nn.functional.linear(table, weight, bias))


class _Parts(torch.autograd.Function):
    """The MLP for all layers. It saves nothing but its parameters, so parts may go backward one by one, and again."""

    @staticmethod
    def forward(ctx: Any, *everything: Any) -> tuple[Tensor, ...]:
        """Return a part for each size."""
        *sources, sizes = everything
        table, hidden, hidden_bias, out, out_bias = sources
        units = hidden_units(table, hidden, hidden_bias)
        whole = nn.functional.linear(units, out, out_bias)
        ctx.sources, ctx.versions = sources, [one._version for one in sources]
        ctx.sizes, ctx.dtype = sizes, whole.dtype
        return tuple(torch.split(whole, list(sizes), dim=1))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        """Return the gradients of the table, the weights and the biases."""
        if [one._version for one in ctx.sources] != ctx.versions:
            raise RuntimeError(
                "one of the variables needed for gradient computation has been modified by an inplace operation: "
                "a parameter of the MLP of a prefix, between the forward and the backward pass."
            )
        length = ctx.sources[0].shape[0]
        with torch.autocast(ctx.sources[0].device.type, enabled=False):
            table, hidden, hidden_bias, out, _ = (one.to(ctx.dtype) for one in ctx.sources)
            filled = [
                table.new_zeros(length, size) if one is None else one
                for one, size in zip(gradients, ctx.sizes, strict=True)
            ]
            slope = torch.cat(filled, dim=1)
            units = hidden_units(table, hidden, hidden_bias)
            inner = (slope @ out) * (1 - units * units)
            found = (inner @ hidden, inner.T @ table, inner.sum(0), slope.T @ units, slope.sum(0))
        return *(one.to(source.dtype) for one, source in zip(found, ctx.sources, strict=True)), None
