"""Markdown tables, and numbers in them."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.rounds import Spread

NOTHING = ""


def table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Return a table whose first ``left`` columns are text."""
    rule = ["---"] * left + ["---:"] * (len(head) - left)
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *rows))


def spread(one: Spread | float | None, digits: int = 2, factor: float = 1.0) -> str:
    """Return a median with its quartiles; a number that was counted stands alone."""
    if one is None:
        return NOTHING
    if not isinstance(one, Spread):
        return f"{one * factor:.{digits}f}"
    low, middle, high = (f"{value * factor:.{digits}f}" for value in (one.low, one.middle, one.high))
    return f"{middle} [{low}, {high}]"


def count(value: float | None) -> str:
    """Return a number of parameters with three digits."""
    if value is None:
        return NOTHING
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f}"


def mebibytes(value: float | None) -> str:
    return NOTHING if value is None else f"{value / 2**20:,.1f}"
