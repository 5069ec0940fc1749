r"""What a change is, as matrices: an affine map, a vector of factors, or hidden units of an FFN.

An affine change of rank r is :math:`x \mapsto U D x + c` with U (out, r) and D (r, in); the composition's
scale is in U and c. Hidden units are :math:`x \mapsto U\,(\sigma(G x + g) \odot (D x + d)) + c`, the factor on
the right, or the gate, being absent where there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unipetl.errors import FoldError
from unipetl.folding.steps import Op
from unipetl.forms.bottleneck import ACTIVATIONS, BottleneckDelta
from unipetl.forms.low_rank import LowRankDelta
from unipetl.forms.rescale import RescaleDelta

#: Activations with f(z) - f(-z) = z for every z, so that two units pass a linear feature through.
MIRRORED = ("relu", "gelu", "gelu_tanh", "silu")


@dataclass(frozen=True)
class LinearChange:
    """``U D x + c``: ``up`` (out, r), ``down`` (r, in), ``constant`` (out,) or None."""

    up: Tensor
    down: Tensor
    constant: Tensor | None


@dataclass(frozen=True)
class Units:
    """Hidden units: ``down``, ``gate`` (r, in), their biases (r,), ``up`` (out, r), ``constant`` (out,)."""

    down: Tensor
    down_bias: Tensor | None
    gate: Tensor | None
    gate_bias: Tensor | None
    up: Tensor
    constant: Tensor | None
    activation: str


def require_finite(op: Op) -> None:
    """Refuse NaN and infinite values.

    Raises:
        FoldError: there is one; the message names the tensor.
    """
    for name, value in op.change.named_parameters():
        if value.is_meta:
            raise FoldError(f"{op.placement.key}: the attachment is on the meta device and has no values to fold.")
        if not bool(torch.isfinite(value).all()):
            raise FoldError(
                f"{op.placement.key}/{name.removeprefix('delta.')} of attachment {op.record.name!r} has NaN or "
                "infinite values: the training diverged. Nothing was folded."
            )


def factors_of(op: Op, like: Tensor) -> Tensor:
    """Return the factors (out,) of a rescaling, in the dtype of ``like``."""
    assert isinstance(op.change.delta, RescaleDelta)
    return _cast(op.change.delta.factor, like)


def linear_of(op: Op, like: Tensor) -> LinearChange:
    """Return a linear change as matrices in the dtype of ``like``."""
    delta, scale = op.change.delta, _scale(op, like)
    if isinstance(delta, LowRankDelta):
        return LinearChange(_cast(delta.up, like) * scale, _cast(delta.down, like), None)
    assert isinstance(delta, BottleneckDelta)
    up = _cast(delta.up, like) * scale
    constant = None
    if delta.down_bias is not None and delta.up_bias is not None:
        constant = up @ _cast(delta.down_bias, like) + _cast(delta.up_bias, like) * scale
    return LinearChange(up, _cast(delta.down, like), constant)


def units_of(op: Op, like: Tensor) -> Units:
    """Return a bottleneck, or a linear change (as units of activation ``identity``), in the dtype of ``like``."""
    delta, scale = op.change.delta, _scale(op, like)
    if isinstance(delta, LowRankDelta):
        change = linear_of(op, like)
        return Units(change.down, None, None, None, change.up, None, "identity")
    assert isinstance(delta, BottleneckDelta)

    def read(values: Tensor | None) -> Tensor | None:
        cast = None if values is None else _cast(values, like)
        return None if cast is None or not bool(cast.any()) else cast  # a bias of zeros is none

    gate = None if delta.gate is None else _cast(delta.gate, like)
    constant = read(delta.up_bias)
    return Units(
        down=_cast(delta.down, like),
        down_bias=read(delta.down_bias),
        gate=gate,
        gate_bias=read(delta.gate_bias),
        up=_cast(delta.up, like) * scale,
        constant=None if constant is None else constant * scale,
        activation=delta.form.activation,
    )


def mirrored(units: Units, activation: str) -> Units:
    """Return linear units as twice as many of an activation with f(z) - f(-z) = z."""
    bias = units.down_bias
    return replace(
        units,
        down=torch.cat([units.down, -units.down]),
        down_bias=None if bias is None else torch.cat([bias, -bias]),
        up=torch.cat([units.up, -units.up], dim=1),
        activation=activation,
    )


def gated(units: Units, activation: str) -> Units:
    """Return ungated units for an FFN that is gated by ``activation``: the factor they lack is a constant bias.

    Units of that activation become the gate beside a factor of 1; linear ones the factor beside a gate of σ(1).
    """
    rank = units.down.shape[0]
    zeros, ones = torch.zeros_like(units.down), units.down.new_ones(rank)
    if units.activation == "identity":
        level = float(ACTIVATIONS[activation](torch.ones((), dtype=torch.float64)))
        return replace(units, gate=zeros, gate_bias=ones, up=units.up / level, activation=activation)
    return replace(units, gate=units.down, gate_bias=units.down_bias, down=zeros, down_bias=ones)


def joined(parts: Sequence[Tensor | None], rows: Sequence[int], like: Tensor) -> Tensor | None:
    """Return vectors one after the other, zeros for those that are None; None if all are."""
    if all(part is None for part in parts):
        return None
    filled = [like.new_zeros(n) if part is None else part for part, n in zip(parts, rows, strict=True)]
    return torch.cat(filled)


def _scale(op: Op, like: Tensor) -> float | Tensor:
    return op.scale if isinstance(op.scale, float) else _cast(op.scale, like)


def _cast(value: Tensor, like: Tensor) -> Tensor:
    return value.detach().to(device=like.device, dtype=like.dtype)
