r"""The low-rank linear map of LoRA.

.. math:: \Delta h = W_{up}\, W_{down}\, x

Source: He et al. 2022, table 1 and equation 6; Hu et al. 2022. The factor s = alpha / r is the
composition's scale.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from unipetl.forms.form import (
    Delta,
    Features,
    Form,
    Init,
    Shape,
    affine,
    normal_,
    plus_affine,
    projected,
    uniform_,
    zero_,
)


class LowRank(Form):
    """``W_up W_down drop(x)``, no biases.

    Args:
        rank: r.
        dropout: probability, on what it reads.
        init: ``lora`` starts at zero change (W_down Kaiming-uniform, W_up 0); ``bert`` draws both from N(0, 0.02).
            Where W_down is looked up by a token's number, ``lora`` makes W_down 0 and W_up Kaiming-uniform, so that
            tokens that training never sees stay what they were.
    """

    tag: ClassVar[str] = "low_rank"
    equation: ClassVar[str] = "W_up W_down ·"
    needs: ClassVar[type[Features]] = Features

    rank: int = Field(gt=0)
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    init: Init = "lora"

    @property
    def starts_at_zero(self) -> bool:
        """True for ``init='lora'``."""
        return self.init == "lora"

    def build_shared(self, shapes: Sequence[Shape]) -> None:
        """Nothing is shared between places."""

    def build(self, shape: Shape, shared: Delta | None, index: int) -> LowRankDelta:
        """Return the module for one place."""
        del shared, index
        assert isinstance(shape, Features)
        return LowRankDelta(self, shape)

    def paper_parameters(self, shape: Shape) -> int:
        """``r (d_in + d_out)`` (appendix B)."""
        assert isinstance(shape, Features)
        return self.rank * (shape.in_features + shape.out_features)


class LowRankDelta(Delta):
    """The trainable part of a [LowRank][]: ``down`` (r, in), ``up`` (out, r)."""

    by_row: ClassVar[bool] = True

    def __init__(self, form: LowRank, shape: Features) -> None:
        super().__init__()
        self.form = form
        self.lookup = shape.lookup
        self.down = nn.Parameter(torch.empty(form.rank, shape.in_features))
        self.up = nn.Parameter(torch.empty(shape.out_features, form.rank))

    def reset(self, generator: torch.Generator) -> None:
        """Draw the initial values (see ``init``)."""
        if self.form.init == "bert":
            normal_(self.down, generator)
            normal_(self.up, generator)
        elif self.lookup:
            zero_(self.down)
            uniform_(self.up, generator, 1 / math.sqrt(self.up.shape[1]))
        else:
            uniform_(self.down, generator, 1 / math.sqrt(self.down.shape[1]))
            zero_(self.up)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in_features) to (..., out_features), in the dtype of ``x``; a lookup maps numbers (...) so."""
        z = self._down(x)
        return affine(z, self.up.to(z.dtype))

    def added(self, h: Tensor, x: Tensor, scale: float | Tensor, *, in_place: bool = False) -> Tensor:
        """Return ``h + scale * self(x)`` by one product, without the change itself."""
        return plus_affine(h, self._down(x), self.up, scale, in_place=in_place)

    def _down(self, x: Tensor) -> Tensor:
        if self.lookup:
            return self._looked_up(x)
        if self.form.dropout:
            x = nn.functional.dropout(x, self.form.dropout, self.training)
        return projected(x, self.down)

    def _looked_up(self, x: Tensor) -> Tensor:
        """Map numbers (...) to columns of W_down (..., r), row by row where W_down is (rows, r, in)."""
        if self.down.dim() == 2:
            return nn.functional.embedding(x, self.down.T)
        return self.down.transpose(1, 2).take_along_dim(x.unsqueeze(-1), dim=1)
