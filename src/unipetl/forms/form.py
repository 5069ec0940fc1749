"""Axis 1, *functional form*: how the learned change is computed. The abstract part.

A form is data ([Form][]) that can build the trainable module for one place of a model. The place is
described by a [Shape][] alone, so forms know nothing of models.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from unipetl.axis import Axis
from unipetl.forms.recompute import recomputed

Init = Literal["bert", "lora"]
LayerNormAt = Literal["none", "in", "out"]

#: Standard deviation of the ``bert`` initialisation (paper, appendix A; the released code).
BERT_STD = 0.02
#: Epsilon of every layer norm inside a learned change, whatever the model's own (the released code).
LAYER_NORM_EPS = 1e-5


@dataclass(frozen=True, slots=True)
class Features:
    """A place that maps vectors to vectors: reads ``in_features`` numbers, changes ``out_features``.

    Where it is a ``lookup`` it reads a whole number below ``in_features``, which stands for a vector with a one there.
    """

    in_features: int
    out_features: int
    lookup: bool = False


@dataclass(frozen=True, slots=True)
class Experts:
    """Places of one shape ``each``, of which every token visits a few: those chosen of ``total`` experts."""

    each: Features
    total: int
    chosen: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Heads:
    """An attention's heads. ``width`` is the size of the vectors the attention reads."""

    width: int
    query_heads: int
    key_heads: int
    key_dim: int
    value_dim: int


@dataclass(frozen=True, slots=True)
class Tokens:
    """A sequence of vectors of ``width`` numbers that enters the first layer."""

    width: int


Shape = Features | Heads | Tokens | Experts


class Delta(nn.Module):
    """Abstract: the trainable part of one change at one place.

    Where ``by_row`` is True, ``forward`` also takes parameters with one more axis in front, the row: row i of a batch
    (rows, n, features) is then computed with the i-th values (see [affine][] and [by_row][]). A form without it is
    computed once for each attachment where rows of a batch have different ones.
    """

    by_row: ClassVar[bool] = False

    def __init_subclass__(cls, **options: Any) -> None:
        """Let a class that computes its change in another way not inherit a shorter way to add it."""
        super().__init_subclass__(**options)
        if "forward" in vars(cls) and "added" not in vars(cls):
            cls.added = Delta.added  # type: ignore[method-assign]

    @abstractmethod
    def reset(self, generator: torch.Generator) -> None:
        """Draw the initial values, in place, from ``generator`` (which lives on the CPU)."""

    def added(self, h: Tensor, x: Tensor, scale: float | Tensor, *, in_place: bool = False) -> Tensor:
        """Return ``h + scale * self(x)`` in the dtype of ``h``; a form may know a shorter way than this.

        Args:
            h: (..., out features).
            x: what the form reads, (..., in features); it may be h.
            scale: a number, a learned one (1,), or one for each row (rows, 1).
            in_place: whether the sum may take the place of h, which nobody else reads, no graph either.
        """
        return plus(h, self(x), scale, in_place=in_place)

    def stacked(self, others: Sequence[Delta]) -> Delta:
        """Return a view of this with the parameters of ``others``, itself among them, stacked along a first axis."""
        found = stack_modules(others)
        assert isinstance(found, Delta)
        return found


def view_with(
    module: nn.Module, parameters: Mapping[str, Tensor | None], modules: Mapping[str, nn.Module | None] | None = None
) -> nn.Module:
    """Return a module that shares everything with ``module`` but the parameters (and children) given."""
    result: nn.Module = object.__new__(type(module))
    result.__dict__.update({name: value for name, value in module.__dict__.items() if name not in parameters})
    result.__dict__["_parameters"] = {**module._parameters, **parameters}
    result.__dict__["_modules"] = {**module._modules, **(modules or {})}
    return result


def stack_modules(modules: Sequence[nn.Module]) -> nn.Module:
    """Return a view of the first module whose parameters are those of all, (modules, ...), in their graph."""
    first = modules[0]
    parameters = {
        name: torch.stack([one.get_parameter(name) for one in modules])
        for name, own in first._parameters.items()
        if own is not None
    }
    children = {
        name: stack_modules([one.get_submodule(name) for one in modules])
        for name, child in first._modules.items()
        if child is not None
    }
    return view_with(first, parameters, children)


def affine(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Map x (..., in) to (..., out) with ``weight`` (out, in); row by row (rows, n, in) with (rows, out, in)."""
    if weight.dim() == 2:
        return nn.functional.linear(x, weight, bias)
    if bias is None:
        return torch.bmm(x, weight.transpose(1, 2))
    return torch.baddbmm(bias[:, None], x, weight.transpose(1, 2))


def projected(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Map x as [affine][] does, without keeping it for backward where backward can compute it again."""
    if x.dtype == torch.float32 and not torch.compiler.is_compiling() and torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))  # here, or autocast keeps a copy of each reader's own
    with recomputed(x):
        return affine(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))


def plus(h: Tensor, change: Tensor, scale: float | Tensor, *, in_place: bool = False) -> Tensor:
    """Return ``h + scale * change`` in the dtype of ``h``, both of any equal shape (see [Delta.added][])."""
    change = change.to(h.dtype)
    if isinstance(scale, Tensor):
        change, scale = by_row(scale.to(h.dtype), h) * change, 1.0
    if in_place and change.shape == h.shape:
        return h.add_(change, alpha=scale)
    return torch.add(h, change, alpha=scale)


def plus_affine(h: Tensor, z: Tensor, weight: Tensor, scale: float | Tensor, *, in_place: bool = False) -> Tensor:
    """Return ``h + scale * affine(z, weight)`` in the dtype of ``h``, in one product where dtypes allow.

    The scale meets z (..., r), and never the many features of h, forward or backward. In place the product is added
    to what is there, without a copy of h.
    """
    if isinstance(scale, Tensor):
        z, scale = by_row(scale.to(z.dtype), z) * z, 1.0
    weight = weight.to(z.dtype)
    lowered = h.dtype == torch.float32 and torch.is_autocast_enabled(h.device.type)  # autocast would lower h as well
    if lowered or h.dtype != z.dtype or h.shape[:-1] != z.shape[:-1]:
        return plus(h, affine(z, weight), scale, in_place=in_place)
    if weight.dim() == 3:
        rows, ups = (h.baddbmm_ if in_place else h.baddbmm), weight.transpose(1, 2)
        return rows(z, ups, alpha=scale)
    flat = h.reshape(-1, h.shape[-1])
    product = flat.addmm_ if in_place else flat.addmm
    return product(z.reshape(-1, z.shape[-1]), weight.T, alpha=scale).view(h.shape)


def by_row(values: Tensor, like: Tensor) -> Tensor:
    """Return ``values`` (f,), or (rows, f) of which each serves as many rows of ``like``, to be used beside it."""
    if values.dim() == 1:
        return values
    each = like.shape[0] // values.shape[0]
    values = values if each == 1 else values.repeat_interleave(each, dim=0)
    return values.view(values.shape[0], *(1 for _ in like.shape[2:]), values.shape[1])


class Form(Axis):
    """Abstract: a functional form.

    Class attributes name the shape of place it needs (``needs``) and its equation.
    """

    axis: ClassVar[str] = "functional form"
    equation: ClassVar[str]
    needs: ClassVar[type[Features] | type[Heads] | type[Tokens]]

    @property
    @abstractmethod
    def starts_at_zero(self) -> bool:
        """Whether the change is exactly zero before training (for ``multiply``: exactly one)."""

    @abstractmethod
    def build_shared(self, shapes: Sequence[Shape]) -> Delta | None:
        """Return the module that several places share (one stack and kind), or None."""

    @abstractmethod
    def build(self, shape: Shape, shared: Delta | None, index: int) -> Delta:
        """Return the module of one place, the ``index``-th of those that share ``shared``."""

    @abstractmethod
    def paper_parameters(self, shape: Shape) -> int:
        """Return the count by the paper's rule: weight matrices only (appendix B)."""


def normal_(parameter: nn.Parameter, generator: torch.Generator, std: float = BERT_STD) -> None:
    """Fill ``parameter`` with N(0, std), drawn on the CPU in float32 so that devices and dtypes agree."""
    _draw(parameter, lambda values: values.normal_(0.0, std, generator=generator))


def uniform_(parameter: nn.Parameter, generator: torch.Generator, bound: float) -> None:
    """Fill ``parameter`` with U(-bound, bound), drawn on the CPU in float32."""
    _draw(parameter, lambda values: values.uniform_(-bound, bound, generator=generator))


def _draw(parameter: nn.Parameter, fill: Callable[[Tensor], Tensor]) -> None:
    with torch.no_grad():
        if parameter.device.type == "cpu" and parameter.dtype == torch.float32:
            fill(parameter)
        else:
            parameter.copy_(fill(torch.empty(parameter.shape, dtype=torch.float32)))


def zero_(parameter: nn.Parameter | None) -> None:
    """Fill ``parameter``, if there is one, with zeros."""
    if parameter is not None:
        nn.init.zeros_(parameter)


class CastLayerNorm(Delta):
    """Layer norm over the last axis, computed in the input's dtype with its own (float32) parameters."""

    by_row: ClassVar[bool] = True

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.bias = nn.Parameter(torch.empty(width))

    def reset(self, generator: torch.Generator) -> None:
        """Start at weight 1, bias 0; ``generator`` is not used."""
        del generator
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., width) to (..., width)."""
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        if weight.dim() == 1:
            return nn.functional.layer_norm(x, weight.shape, weight, bias, LAYER_NORM_EPS)
        return nn.functional.layer_norm(x, x.shape[-1:], None, None, LAYER_NORM_EPS) * by_row(weight, x) + by_row(
            bias, x
        )
