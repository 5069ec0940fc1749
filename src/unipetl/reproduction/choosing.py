"""What somebody chooses about the paper's recipes: rows, tasks, another model, local files, other settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unipetl.budget import Budget, Rule
from unipetl.errors import RunError, unknown
from unipetl.experiment.recipe import Recipe
from unipetl.reproduction.data import local_files
from unipetl.reproduction.overview import Planned, planned
from unipetl.reproduction.paper import cells, find_rows, recipe_data

Change = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Choice:
    """What is to be reproduced, and how it differs from the paper.

    Args:
        place: a table or figure.
        rows: keys of its rows; none for all.
        task: one task alone; None for all of the place.
        model: a folder or a name in place of the paper's checkpoint.
        data: a folder with the data's files, in place of the hub.
        seeds: in place of the paper's.
        budget, rule: sizes are solved for instead of taken from the paper.
        changes: functions that change a recipe's data, such as ``--set``.
    """

    place: str
    rows: tuple[str, ...] = ()
    task: str | None = None
    model: str | None = None
    data: Path | None = None
    seeds: tuple[int, ...] = ()
    budget: Budget | None = None
    rule: Rule = "paper"
    changes: tuple[Change, ...] = ()


def choose(choice: Choice) -> list[Planned]:
    """Return the cells of a choice with their recipes, in the paper's order.

    Raises:
        RunError: there is no such table, row or task, or the folder lacks a file.
        RecipeError: a change makes no recipe.
        PlanError: a method makes no sense on the model, or a budget is not to be met.
        DownloadError: the model's dimensions cannot be had.
    """
    rows = find_rows(choice.place, choice.rows)
    tasks = list(dict.fromkeys(cell.task for row in rows for cell in row.cells))
    if choice.task is not None and choice.task not in tasks:
        raise RunError(unknown(f"task of {choice.place}", choice.task, tasks))
    wanted = tasks if choice.task is None else [choice.task]
    return [planned(row, cell, _recipe(row, cell, choice)) for task in wanted for row, cell in cells(rows, task)]


def _recipe(row: Any, cell: Any, choice: Choice) -> Recipe:
    data = recipe_data(row, cell)
    if choice.model is not None:
        data["model"] = choice.model
    if choice.seeds:
        data["seeds"] = list(choice.seeds)
    if choice.data is not None:
        files = local_files(choice.data, cell.task)
        data["options"] = {**data.get("options", {}), **files}
    for change in choice.changes:
        change(data)
    recipe = Recipe(**data)
    if choice.budget is None or not _has_size(recipe):
        return recipe
    from unipetl.experiment.budget import within

    return within(recipe, choice.budget, rule=choice.rule)


def _has_size(recipe: Recipe) -> bool:
    from unipetl.sizes import sizes

    return isinstance(recipe.method, str) and bool(sizes(recipe.method))


def without_half_precision(planned_cells: Sequence[Planned]) -> tuple[list[Planned], bool]:
    """Return the cells to be trained in full precision, and whether that changed any: half needs an accelerator."""
    changed = False
    ready = []
    for one in planned_cells:
        if one.recipe.training.get("fp16"):
            training = {**one.recipe.training, "fp16": False}
            one = planned(one.row, one.cell, one.recipe.model_copy(update={"training": training}))
            changed = True
        ready.append(one)
    return ready, changed
