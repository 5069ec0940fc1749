"""Axis 4, *composition function*: how the learned change joins h.

Source: He et al. 2022, section 3.2 and equations 7 to 10.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal

from pydantic import field_validator

from unipetl.axis import Axis


class Composition(Axis):
    """Abstract: how the change joins h."""

    axis: ClassVar[str] = "composition"

    @abstractmethod
    def symbols(self) -> str:
        """Return the composition as the paper writes it."""


class Add(Composition):
    """``h <- h + s * dh`` (table 1; section 4.5 for scaling).

    Args:
        scale: s, or ``learned``: one trained number per place, 1 at the start.
    """

    tag: ClassVar[str] = "add"
    scale: float | Literal["learned"] = 1.0

    @field_validator("scale")
    @classmethod
    def _finite(cls, scale: float | str) -> float | str:
        if isinstance(scale, float) and (scale != scale or scale in (float("inf"), float("-inf")) or scale == 0):
            raise ValueError("the scale must be a finite number other than 0, or 'learned'")
        return scale

    def symbols(self) -> str:
        """Return ``h ← h + s·Δh``, with the value of s where it is a number other than 1."""
        if self.scale == 1.0:
            return "h ← h + Δh"
        return f"h ← h + {'s' if isinstance(self.scale, str) else f'{self.scale:g}'}·Δh"


class Gate(Composition):
    """``h <- (1 - l) * h + l * dh``, l = the attention mass on the learned positions (equation 7).

    Computed as what it is, one softmax over the learned and the model's own positions together.
    """

    tag: ClassVar[str] = "gate"

    def symbols(self) -> str:
        """Return ``h ← (1-λ)h + λΔh``."""
        return "h ← (1-λ)h + λΔh"


class Multiply(Composition):
    """``h <- h * dh``, element by element (beyond the paper; Liu et al. 2022, (IA)^3)."""

    tag: ClassVar[str] = "multiply"

    def symbols(self) -> str:
        """Return ``h ← h ⊙ l``."""
        return "h ← h ⊙ l"


COMPOSITIONS: tuple[type[Composition], ...] = (Add, Gate, Multiply)
