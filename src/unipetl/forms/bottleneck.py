r"""The bottleneck: down-projection, non-linearity, up-projection.

.. math:: \Delta h = W_{up}\, \sigma(W_{down}\, n(\cdot) + b_{down}) + b_{up}

with n the identity or a layer norm. Source: He et al. 2022, table 1 and equation 4; Houlsby et al. 2019.
The paper's equations have no biases, layer norm or inner dropout; its released code has biases, and
layer norms at attention. They are settings here. A gated bottleneck is the FFN of Shazeer 2020
(https://arxiv.org/abs/2002.05202), r wide; beyond the paper:

.. math:: \Delta h = W_{up}\, (\sigma(W_{gate}\, n(\cdot) + b_{gate}) \odot (W_{down}\, n(\cdot) + b_{down})) + b_{up}
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from unipetl.errors import MethodError
from unipetl.forms.form import (
    CastLayerNorm,
    Delta,
    Features,
    Form,
    Init,
    LayerNormAt,
    Shape,
    affine,
    by_row,
    normal_,
    plus,
    plus_affine,
    projected,
    uniform_,
    zero_,
)

Activation = Literal["relu", "gelu", "gelu_tanh", "silu", "tanh", "identity", "model"]

#: The activations; ``model`` is none of its own and stands for the FFN's.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": nn.functional.relu,
    "gelu": nn.functional.gelu,
    "gelu_tanh": lambda z: nn.functional.gelu(z, approximate="tanh"),
    "silu": nn.functional.silu,
    "tanh": torch.tanh,
    "identity": lambda z: z,
}


class Bottleneck(Form):
    """``W_up σ(W_down n(.) + b_down) + b_up``.

    Args:
        rank: r, the size of the bottleneck.
        activation: σ. ``model`` makes the bottleneck of one piece with its layer's FFN: the FFN's own σ, gated
            if the FFN is gated, without biases if the FFN has none. Beside an FFN it then is r more hidden
            units of it, and folds into a wider FFN (see [fold][unipetl.folding.fold]).
        gated: whether a second down-projection, through σ, multiplies the first, which then has none.
        bias: whether the two projections have biases (never counted by the paper's rule).
        layer_norm: ``in`` normalises what the bottleneck reads, ``out`` its result.
        dropout: probability, after σ.
        init: ``lora`` starts at zero change (W_down Kaiming-uniform, W_up 0); ``bert`` draws both from N(0, 0.02).
        inner_scale: a factor on the result before an ``out`` layer norm; a number or ``learned``.
    """

    tag: ClassVar[str] = "bottleneck"
    equation: ClassVar[str] = "W_up σ(W_down · + b_down) + b_up"
    needs: ClassVar[type[Features]] = Features

    rank: int = Field(gt=0)
    activation: Activation = "relu"
    gated: bool = False
    bias: bool = True
    layer_norm: LayerNormAt = "none"
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    init: Init = "lora"
    inner_scale: float | Literal["learned"] = 1.0

    @model_validator(mode="after")
    def _scale_needs_norm(self) -> Bottleneck:
        if self.inner_scale != 1.0 and self.layer_norm != "out":
            raise ValueError("inner_scale only acts before an 'out' layer norm; use the composition's scale instead")
        return self

    @property
    def starts_at_zero(self) -> bool:
        """True for ``init='lora'``: W_up and the biases are 0."""
        return self.init == "lora"

    def build_shared(self, shapes: Sequence[Shape]) -> None:
        """Nothing is shared between places."""

    def build(self, shape: Shape, shared: Delta | None, index: int) -> BottleneckDelta:
        """Return the module for one place.

        Raises:
            MethodError: the activation is ``model``, and no model has settled it.
        """
        del shared, index
        assert isinstance(shape, Features)
        if self.activation == "model":
            raise MethodError("bottleneck: activation 'model' is settled by plan(), which knows the model's FFN.")
        return BottleneckDelta(self, shape)

    def settled(self, activation: Activation, *, gated: bool, bias: bool) -> Bottleneck:
        """Return this bottleneck with ``activation='model'`` replaced by what the FFN has."""
        changes = {"activation": activation, "gated": self.gated or gated, "bias": self.bias and bias}
        return self.model_copy(update=changes)

    def paper_parameters(self, shape: Shape) -> int:
        """``r (d_in + d_out)``: 2rd when both are d (appendix B); a gate has another r d_in."""
        assert isinstance(shape, Features)
        return self.rank * ((1 + self.gated) * shape.in_features + shape.out_features)


class BottleneckDelta(Delta):
    """The trainable part of a [Bottleneck][]: ``down``, ``gate`` (r, in), ``up`` (out, r), biases and norm."""

    by_row: ClassVar[bool] = True

    def __init__(self, form: Bottleneck, shape: Features) -> None:
        super().__init__()
        self.form = form
        self.down = nn.Parameter(torch.empty(form.rank, shape.in_features))
        self.up = nn.Parameter(torch.empty(shape.out_features, form.rank))
        self.down_bias = nn.Parameter(torch.empty(form.rank)) if form.bias else None
        self.up_bias = nn.Parameter(torch.empty(shape.out_features)) if form.bias else None
        self.gate = nn.Parameter(torch.empty(form.rank, shape.in_features)) if form.gated else None
        self.gate_bias = nn.Parameter(torch.empty(form.rank)) if form.gated and form.bias else None
        norm_width = {"none": None, "in": shape.in_features, "out": shape.out_features}[form.layer_norm]
        self.layer_norm = CastLayerNorm(norm_width) if norm_width is not None else None
        self.inner_scale = nn.Parameter(torch.empty(1)) if form.inner_scale == "learned" else None

    def reset(self, generator: torch.Generator) -> None:
        """Draw the initial values (see ``init``)."""
        if self.form.init == "bert":
            normal_(self.down, generator)
            normal_(self.up, generator)
        else:
            uniform_(self.down, generator, 1 / math.sqrt(self.down.shape[1]))
            zero_(self.up)
        for bias in (self.down_bias, self.up_bias, self.gate_bias):
            zero_(bias)
        if self.gate is not None:
            if self.form.init == "bert":
                normal_(self.gate, generator)
            else:
                uniform_(self.gate, generator, 1 / math.sqrt(self.gate.shape[1]))
        if self.layer_norm is not None:
            self.layer_norm.reset(generator)
        if self.inner_scale is not None:
            nn.init.ones_(self.inner_scale)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in_features) to (..., out_features), in the dtype of ``x``."""
        form, z = self.form, self._inner(x)
        change = affine(z, self.up.to(z.dtype), _cast(self.up_bias, z.dtype))
        if self.layer_norm is not None and form.layer_norm == "out":
            scale = self.inner_scale
            factor = form.inner_scale if scale is None else by_row(scale.to(change.dtype), change)
            change = self.layer_norm(change * factor)
        return change

    def added(self, h: Tensor, x: Tensor, scale: float | Tensor, *, in_place: bool = False) -> Tensor:
        """Return ``h + scale * self(x)``; the scale meets the r hidden units, unless a layer norm comes after them."""
        if self.form.layer_norm == "out":
            return super().added(h, x, scale, in_place=in_place)
        z = self._inner(x)
        if self.up_bias is None:
            return plus_affine(h, z, self.up, scale, in_place=in_place)
        bias = self.up_bias.to(z.dtype)
        if isinstance(scale, Tensor):
            scale = scale.to(z.dtype)
            z, bias = by_row(scale, z) * z, scale * bias
        elif scale != 1.0:
            z, bias = scale * z, scale * bias
        return plus(h, affine(z, self.up.to(z.dtype), bias), 1.0, in_place=in_place)

    def _inner(self, x: Tensor) -> Tensor:
        """Map (..., in_features) to the hidden units (..., r)."""
        form = self.form
        if self.layer_norm is not None and form.layer_norm == "in":
            x = self.layer_norm(x)
        z = projected(x, self.down, self.down_bias)
        if self.gate is None:
            z = ACTIVATIONS[form.activation](z)
        else:
            z = ACTIVATIONS[form.activation](projected(x, self.gate, self.gate_bias)) * z
        return nn.functional.dropout(z, form.dropout, self.training) if form.dropout else z


def _cast(bias: nn.Parameter | None, dtype: torch.dtype) -> Tensor | None:
    return None if bias is None else bias.to(dtype)
