"""The size (rank, length) at which a method trains a given number of parameters on a given model."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from unipetl.errors import PlanError
from unipetl.method import Method
from unipetl.notation import parse
from unipetl.planning import plan

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


def _filled(method: str) -> Callable[[int], Method]:
    if OPEN not in method:
        raise PlanError(f"method {method!r}: mark the size to solve for with '?', as in 'lora(rank=?)'.")
    return lambda size: parse(method.replace(OPEN, str(size)))
