"""Axis 1, *functional form*: how the learned change is computed. The abstract part.

A form is data ([Form][]) that can build the trainable module for one place of a model. The place is
described by a [Shape][] alone, so forms know nothing of models.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from unipetl.axis import Axis

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
    """Abstract: the trainable part of one change at one place."""

    @abstractmethod
    def reset(self, generator: torch.Generator) -> None:
        """Draw the initial values, in place, from ``generator`` (which lives on the CPU)."""


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
    with torch.no_grad():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)


def uniform_(parameter: nn.Parameter, generator: torch.Generator, bound: float) -> None:
    """Fill ``parameter`` with U(-bound, bound), drawn on the CPU in float32."""
    with torch.no_grad():
        parameter.copy_((torch.rand(parameter.shape, generator=generator) * 2 - 1) * bound)


def zero_(parameter: nn.Parameter | None) -> None:
    """Fill ``parameter``, if there is one, with zeros."""
    if parameter is not None:
        nn.init.zeros_(parameter)


class CastLayerNorm(Delta):
    """Layer norm over the last axis, computed in the input's dtype with its own (float32) parameters."""

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
        return nn.functional.layer_norm(
            x, self.weight.shape, self.weight.to(x.dtype), self.bias.to(x.dtype), LAYER_NORM_EPS
        )
