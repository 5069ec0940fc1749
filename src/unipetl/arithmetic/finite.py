"""Weights that are numbers, and results that are: what the exact laws and the approximations ask of both."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from numbers import Real

import torch
from torch import Tensor

from unipetl.arithmetic.term import Term
from unipetl.errors import CombinationError


def finite_weights(count: int, weights: Sequence[float]) -> list[float]:
    """Return the weights of ``count`` attachments as floats.

    Raises:
        CombinationError: there is not one for each of at least one attachment, or one is no finite real number.
    """
    if not count or count != len(weights):
        raise CombinationError(f"expected one weight for each of some attachments, found {len(weights)} for {count}.")
    return [_finite(weight, place) for place, weight in enumerate(weights)]


def _finite(weight: object, place: int) -> float:
    try:
        number = float(weight) if isinstance(weight, Real) and not isinstance(weight, bool) else math.nan
    except OverflowError:  # an integer that no float holds
        number = math.inf
    if not math.isfinite(number):
        raise CombinationError(f"weight {place + 1}: expected a finite number, found {weight!r}.")
    return number


def require_finite(values: Iterable[tuple[str, Tensor]]) -> None:
    """Refuse values with which no attachment can be loaded.

    Args:
        values: where each is, and the tensor, of any shape.

    Raises:
        CombinationError: one has NaN or infinite values.
    """
    for where, value in values:
        if not bool(torch.isfinite(value).all()):
            raise CombinationError(
                f"{where!r}: NaN or infinite values; an attachment has them, or the weights are too large for "
                f"{str(value.dtype).removeprefix('torch.')}."
            )


def finite(one: Term) -> Term:
    """Return a term, if all its values are finite.

    Raises:
        CombinationError: they are not.
    """
    require_finite(one.tensors().items())
    return one
