"""Axis 4, *composition function*: how the learned change joins h.

Source: He et al. 2022, section 3.2 and equations 7 to 10.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import field_validator

from unipetl.axis import Axis


class Composition(Axis):
    """Abstract: how the change joins h."""

    axis: ClassVar[str] = "composition"
    equation: ClassVar[str]


class Add(Composition):
    """``h <- h + s * dh`` (table 1; section 4.5 for scaling).

    Args:
        scale: s, or ``learned``: one trained number per place, 1 at the start.
    """

    tag: ClassVar[str] = "add"
    equation: ClassVar[str] = "h <- h + s*dh"
    scale: float | Literal["learned"] = 1.0

    @field_validator("scale")
    @classmethod
    def _finite(cls, scale: float | str) -> float | str:
        if isinstance(scale, float) and (scale != scale or scale in (float("inf"), float("-inf")) or scale == 0):
            raise ValueError("the scale must be a finite number other than 0, or 'learned'")
        return scale


class Gate(Composition):
    """``h <- (1 - l) * h + l * dh``, l = the attention mass on the learned positions (equation 7).

    Computed as what it is, one softmax over the learned and the model's own positions together.
    """

    tag: ClassVar[str] = "gate"
    equation: ClassVar[str] = "h <- (1-λ)h + λ*dh"


class Multiply(Composition):
    """``h <- h * dh``, element by element (beyond the paper; Liu et al. 2022, (IA)^3)."""

    tag: ClassVar[str] = "multiply"
    equation: ClassVar[str] = "h <- h ⊙ dh"


COMPOSITIONS: tuple[type[Composition], ...] = (Add, Gate, Multiply)
