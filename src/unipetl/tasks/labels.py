"""Labels: names and numbers of them, and a clear word about any other."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from unipetl.errors import TaskError, nearest
from unipetl.tasks.rows import Rows

#: More distinct labels than this are taken for a wrong column.
MOST = 1_000
#: A label that is a whole number; Python may refuse to read more digits than these, which are a name then.
NUMBER = re.compile(r"-?\d{1,640}")


def find_labels(rows: Rows, column: str) -> tuple[str, ...]:
    """Return the different labels of a column: by number if all are whole numbers, else by letter.

    Raises:
        TaskError: there are fewer than two, or so many that the column must be another.
    """
    names = {_name(value, rows, column, number) for number, value in enumerate(rows.column(column))}
    if not 2 <= len(names) <= MOST:
        what = f"{len(names)} different labels" if len(names) != 1 else f"only the label {min(names)!r}"
        raise TaskError(f"{rows.source}, column {column!r}: found {what}; from 2 to {MOST} can be told apart.")
    if all(map(NUMBER.fullmatch, names)):
        return tuple(sorted(names, key=int))
    return tuple(sorted(names))


def read_labels(rows: Rows, column: str, names: Sequence[str]) -> list[int]:
    """Return the number of every example's label, which may be written as its name or its number.

    Raises:
        TaskError: a label is none of ``names``; the message names its place.
    """
    places = {name: number for number, name in enumerate(names)}
    if not any(map(NUMBER.fullmatch, names)):  # else a number is a name
        places |= {str(number): number for number in range(len(names))}
    found = []
    for number, value in enumerate(rows.column(column)):
        name = _name(value, rows, column, number)
        if name not in places:
            near = nearest(name, names)
            hint = f" Did you mean {near!r}?" if near else ""
            hidden = " A hidden test set has -1 for all: evaluate on another." if name == "-1" else ""
            raise TaskError(
                f"{rows.at(number)}: the label {name!r} is none of {', '.join(map(repr, names))}.{hint}{hidden}"
            )
        found.append(places[name])
    return found


def _name(value: Any, rows: Rows, column: str, number: int) -> str:
    """Return a label as text; true, 1 and 1.0 are told apart from nothing and from lists."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool):
        value = int(value)
    if not isinstance(value, (str, int)) or (isinstance(value, str) and not value.strip()):
        raise TaskError(f"{rows.at(number)}: a label should be a name or a whole number; found {value!r}.")
    name = str(value).strip()
    rows.refuse_surrogates(name, column, number)
    return name
