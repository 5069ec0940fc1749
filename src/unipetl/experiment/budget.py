"""The size (rank, length) at which a method trains a given number of parameters on a given model, or on a task's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from unipetl.budget import Budget, Rule, fit_budget
from unipetl.errors import PlanError
from unipetl.experiment.grid import ComparePlan, Override
from unipetl.experiment.recipe import Recipe
from unipetl.method import Method
from unipetl.notation import parse
from unipetl.planning import plan
from unipetl.sizes import sizes

#: How a method's notation marks the size that is solved for, as in ``lora(rank=?)``.
OPEN = "?"


def solve(
    method: str | Callable[[int], Method], model: nn.Module, budget: int, *, largest: int = 4096
) -> tuple[int, int]:
    """Return the size whose parameters come closest to ``budget``, and how many those are.

    What counts is what the method adds to the model (``Plan.added_parameters``): the task head that all
    methods share does not.

    Args:
        method: notation with ``?`` for every size, which all get the same value (``mam(length=?, rank=?)``), or a
            function of the size.
        model: the model; a skeleton without weights will do.
        budget: how many parameters there should be.
        largest: no larger size is tried; one above costs too much time rather than parameters.

    Raises:
        PlanError: the notation has no ``?``, or the method makes no sense on this model.

    Example::

        solve("lora(rank=?)", model, 100_000)      # (12, 98_304) on a BERT of 6 layers of 384
    """
    build = _filled(method) if isinstance(method, str) else method

    def cost(size: int) -> int:
        return plan(build(size), model).added_parameters

    low, high = 1, largest
    while low < high:  # the smallest size that reaches the budget
        middle = (low + high) // 2
        if cost(middle) < budget:
            low = middle + 1
        else:
            high = middle
    best = min({max(low - 1, 1), low}, key=lambda size: abs(cost(size) - budget))
    return best, cost(best)


def fill(method: str, model: nn.Module, budget: int, *, largest: int = 4096) -> str:
    """Return notation with every ``?`` replaced by the size that [solve][] finds; without one, as it is."""
    if OPEN not in method:
        return method
    size, _ = solve(method, model, budget, largest=largest)
    return method.replace(OPEN, str(size))


def within(recipe: Recipe, budget: Budget | str | float, *, rule: Rule = "true", method: str | None = None) -> Recipe:
    """Return a recipe with its method at the size that meets a budget on the recipe's model.

    Args:
        recipe: the recipe.
        budget: such as ``0.5%`` or ``200k``.
        rule: what counts, see [fit_budget][unipetl.budget.fit_budget].
        method: notation in place of the recipe's, which may have ``?`` where a recipe must be complete.

    Raises:
        PlanError: the method has no size, or none that comes close.
        TaskError, DownloadError: the model cannot be had.
    """
    return recipe.model_copy(update={"method": _fitted(method or recipe.method, task_model(recipe), budget, rule)})


def all_within(plan: ComparePlan, budget: Budget | str | float, *, rule: Rule = "true") -> ComparePlan:
    """Return a comparison with every method that has a size at the one that meets a budget, by the task and model.

    Methods without a size (BitFit, full fine-tuning, zero-shot) stay as they are.

    Raises:
        PlanError: a method has no size that comes close; the message names it, the task and the model.
        TaskError, DownloadError: a task's model cannot be had.
    """
    models: dict[tuple[str, str | None], nn.Module] = {}
    tasks = dict(plan.tasks)
    for cell in plan.cells():
        method = cell.recipe.parsed()
        if method is None or not sizes(method):
            continue
        where = (cell.task, cell.model)
        if where not in models:
            models[where] = task_model(cell.recipe)
        try:
            fitted = _fitted(cell.recipe.method, models[where], budget, rule)
        except PlanError as error:
            raise PlanError(f"{cell.label} on {cell.title}: {error}") from error
        part = tasks[cell.task]
        before = part.methods.get(cell.label, Override())
        now = {"method": fitted} if cell.model is None else {"models": {**before.models, cell.model: fitted}}
        changed = {**part.methods, cell.label: before.model_copy(update=now)}
        tasks[cell.task] = part.model_copy(update={"methods": changed})
    return plan.model_copy(update={"tasks": tasks})


def task_model(recipe: Recipe) -> nn.Module:
    """Return the model that a recipe trains, without weights where its name or folder tells its dimensions.

    Raises:
        TaskError, PlanError, DownloadError: it cannot be had.
    """
    from unipetl.models import resolve_config, skeleton
    from unipetl.tasks import get_task

    task = get_task(recipe.task).configure(recipe.options)
    name = recipe.model or getattr(task, "default_model", None)
    if name is not None:
        return skeleton(resolve_config(name))
    return task.prepare(**task.few()).model


def _fitted(
    method: str | dict[str, Any], model: nn.Module, budget: Budget | str | float, rule: Rule
) -> str | dict[str, Any]:
    if isinstance(method, str):
        found = fit_budget(method, model, budget, rule=rule)
        assert found.notation is not None
        return found.notation
    return fit_budget(Method.from_plain(method), model, budget, rule=rule).method.plain()


def _filled(method: str) -> Callable[[int], Method]:
    if OPEN not in method:
        raise PlanError(f"method {method!r}: mark the size to solve for with '?', as in 'lora(rank=?)'.")
    return lambda size: parse(method.replace(OPEN, str(size)))
