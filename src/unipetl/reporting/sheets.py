"""Tables as data: what HTML, Markdown and LaTeX write down, each in its own way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev


@dataclass(frozen=True)
class Cell:
    """One cell: its text, the number it is sorted by (None: by its text), and whether it is the best."""

    text: str
    value: float | None = None
    best: bool = False


@dataclass(frozen=True)
class Head:
    """A column's heading, and whether its cells are numbers."""

    text: str
    number: bool = False


@dataclass(frozen=True)
class Group:
    """Rows under a heading of their own; the heading may be empty. A row's second cell may name it, see ``Sheet``."""

    title: str
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class Sheet:
    """A table.

    Attributes:
        key: a short name that no other sheet has.
        title, caption: what it shows, and how to read it.
        heads: the columns.
        groups: the rows.
        name: the place of the column that says what a row is about.
    """

    key: str
    title: str
    caption: str
    heads: tuple[Head, ...]
    groups: tuple[Group, ...]
    name: int = 0


def spread(values: Sequence[float], digits: int = 2, *, best: bool = False) -> Cell:
    """Return the mean of some values with their sample standard deviation; a dash for none."""
    if not values:
        return Cell("–", None)
    middle = mean(values)
    text = f"{middle:.{digits}f}"
    if len(values) > 1:
        text += f" ± {stdev(values):.{digits}f}"
    return Cell(text, middle, best)


def percent(share: float) -> Cell:
    """Return a share of one in percent, with as many decimals as tell small shares apart."""
    number = 100 * share
    digits = 0 if number == 0 or number >= 99.95 else 1 if number >= 10 else 2 if number >= 0.1 else 3
    return Cell(f"{number:.{digits}f} %", share)


def count(number: int) -> Cell:
    """Return a whole number with its thousands separated."""
    return Cell(f"{number:,}", number)


def plain(text: str) -> Cell:
    """Return a cell of text."""
    return Cell(text)
