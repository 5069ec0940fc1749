"""The paper's tables and figures by name, and the recipe of every row."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from unipetl.errors import RunError, unknown
from unipetl.experiment.recipe import Recipe
from unipetl.files import write_text
from unipetl.reproduction.figures import FIGURE2, FIGURE4, FIGURE5
from unipetl.reproduction.methods import BITFIT, FULL
from unipetl.reproduction.notes import NOTES
from unipetl.reproduction.row import Cell, Row
from unipetl.reproduction.settings import SETTINGS
from unipetl.reproduction.tables import TABLE2, TABLE3, TABLE4, TABLE5, TABLE6, TABLE12

#: Place -> its rows, in the paper's order.
PLACES: dict[str, tuple[Row, ...]] = {
    "table2": TABLE2,
    "table3": TABLE3,
    "table4": TABLE4,
    "table5": TABLE5,
    "table6": TABLE6,
    "table12": TABLE12,
    "figure2": FIGURE2,
    "figure4": FIGURE4,
    "figure5": FIGURE5,
}


def find_rows(place: str, keys: Sequence[str] = ()) -> tuple[Row, ...]:
    """Return rows of a table or figure, all of them if no key is given.

    Raises:
        RunError: there is no such place or row; the message has the near match.
    """
    if place not in PLACES:
        raise RunError(unknown("table or figure", place, (*PLACES, "claims", "recipes")))
    rows = {row.key: row for row in PLACES[place]}
    for key in keys:
        if key not in rows:
            raise RunError(unknown(f"row of {place}", key, rows))
    return tuple(rows[key] for key in dict.fromkeys(keys)) if keys else PLACES[place]


def cells(rows: Sequence[Row], task: str | None = None) -> Iterator[tuple[Row, Cell]]:
    """Return the cells of rows, of one task or of all, each with its row."""
    for row in rows:
        for cell in row.cells:
            if task in (None, cell.task):
                yield row, cell


def recipe_data(row: Row, cell: Cell) -> dict[str, Any]:
    """Return a cell's recipe as it is written: what a recipe has by default is left out."""
    settings = SETTINGS[cell.task]
    method = row.notation(cell.task)
    full = method == FULL
    several = bool(cell.spread)
    data: dict[str, Any] = {
        "name": f"{row.place}: {row.label}",
        "task": cell.task,
        "model": settings.model,
        "method": method,
        "seeds": list(settings.seeds if several else settings.seeds[:1]),
        "options": dict(settings.options),
        "training": {**settings.training, **(settings.full if full else {}), **cell.training},
    }
    if not settings.train_head and method not in (FULL, BITFIT):
        data["train_head"] = False
    return {name: value for name, value in data.items() if value not in ({}, None)}


def recipe(row: Row, cell: Cell, changes: Mapping[str, Any] | None = None) -> Recipe:
    """Return a cell's recipe, with fields that replace the paper's."""
    return Recipe(**{**recipe_data(row, cell), **(changes or {})})


def notes(row: Row, cell: Cell) -> list[str]:
    """Return what is ambiguous about a cell, in sentences."""
    apart = {"mbart-share": "wmt16-en-ro", "residual": "wmt16-en-ro", "prefix-smoothing": "wmt16-en-ro",
             "steps-95": "xsum", "two-values-sa": "xsum", "rouge-l": "xsum"}  # fmt: skip
    named = dict.fromkeys((*row.notes, *SETTINGS[cell.task].notes))
    return [NOTES[name] for name in named if apart.get(name, cell.task) == cell.task]


def printed(cell: Cell, metric: str) -> str:
    """Return a printed number as text, such as ``21.90 ± 0.01``, or nothing."""
    if metric not in cell.scores:
        return ""
    digits = 2 if cell.task == "xsum" else 1
    spread = f" ± {cell.spread[metric]:.{digits}f}" if metric in cell.spread else ""
    return f"{cell.scores[metric]:.{digits}f}{spread}"


def recipe_text(row: Row, cell: Cell) -> str:
    """Return a cell's recipe as YAML, with what the paper prints and what is ambiguous as comments."""
    scores = ", ".join(f"{metric} {printed(cell, metric)}" for metric in cell.scores)
    share = "" if row.share is None else f"; {row.share:g} % of parameters"
    lines = [f"He et al. 2022, {row.place}: {row.label}.", f"Printed: {scores}{share}."]
    if row.copied:
        lines.append("The paper copied these numbers from elsewhere.")
    comments = [*lines, *(f"Note: {note}" for note in notes(row, cell))]
    wrapped = [
        line for one in comments for line in textwrap.wrap(one, 116, initial_indent="# ", subsequent_indent="#   ")
    ]
    body = yaml.safe_dump(recipe_data(row, cell), sort_keys=False, allow_unicode=True, width=200)
    return "\n".join(wrapped) + "\n" + body


def recipe_files() -> dict[str, str]:
    """Return the path, below the recipes' folder, of every recipe and its text."""
    return {
        f"{place}/{row.key}.{cell.task}.yaml": recipe_text(row, cell)
        for place, rows in PLACES.items()
        for row, cell in cells(rows)
    }


def write_recipes(folder: str | Path) -> list[Path]:
    """Write every recipe into ``folder``; return their paths.

    Raises:
        StorageError: the file system refuses.
    """
    written = []
    for name, text in recipe_files().items():
        path = Path(folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
        written.append(path)
    return written
