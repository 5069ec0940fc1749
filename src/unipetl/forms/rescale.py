r"""A learned vector that multiplies h: (IA)^3. Beyond the paper.

.. math:: h \leftarrow h \odot l

Source: Liu et al. 2022, https://arxiv.org/abs/2205.05638.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from unipetl.forms.form import Delta, Features, Form, Shape, by_row


class Rescale(Form):
    """One factor per feature, 1 at the start."""

    tag: ClassVar[str] = "rescale"
    equation: ClassVar[str] = "l"
    needs: ClassVar[type[Features]] = Features

    @property
    def starts_at_zero(self) -> bool:
        """True: every factor is 1 before training, so h is unchanged."""
        return True

    def build_shared(self, shapes: Sequence[Shape]) -> None:
        """Nothing is shared between places."""

    def build(self, shape: Shape, shared: Delta | None, index: int) -> RescaleDelta:
        """Return the module for one place."""
        del shared, index
        assert isinstance(shape, Features)
        return RescaleDelta(shape)

    def paper_parameters(self, shape: Shape) -> int:
        """``d_out`` (the paper has no such method)."""
        assert isinstance(shape, Features)
        return shape.out_features


class RescaleDelta(Delta):
    """The trainable part of a [Rescale][]: ``factor`` (out,)."""

    by_row: ClassVar[bool] = True

    def __init__(self, shape: Features) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.empty(shape.out_features))

    def reset(self, generator: torch.Generator) -> None:
        """Start at 1; ``generator`` is not used."""
        del generator
        nn.init.ones_(self.factor)

    def forward(self, x: Tensor) -> Tensor:
        """Return the factors (out,) in the dtype of ``x``."""
        return by_row(self.factor.to(x.dtype), x)
