"""The size of a method that a budget of parameters buys: ``--budget 0.5%``.

The size is found by planning, on the true counts of the model at hand. Of the two sizes around the budget the closer
one is taken. What counts is what the method adds to the model (biases, layer norms and a prefix's MLP included), or,
by the paper's rule, its weight matrices alone. The task head, which all methods share, does not count.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from torch import nn

from unipetl import notation
from unipetl.errors import MethodError, PlanError
from unipetl.method import Method
from unipetl.planning import Plan, plan
from unipetl.sizes import resized, sizes

Rule = Literal["true", "paper"]
#: No larger size is tried.
LARGEST = 1 << 16
#: The closest size may be this far from the budget, as a share of the budget.
TOLERANCE = 0.1
_UNITS = {"": 1, "k": 1_000, "m": 1_000_000, "b": 1_000_000_000}
_WRITTEN = re.compile(r"\s*(\d+(?:[_,]\d{3})*(?:\.\d+)?|\.\d+)\s*(%|[kmb]?)\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Budget:
    """So many parameters, or a share of the model's own.

    Attributes:
        amount: the number, or the share of one.
        share: which of the two it is.
    """

    amount: float
    share: bool

    @classmethod
    def read(cls, text: str | float | Budget) -> Budget:
        """Return the budget that is written, such as ``0.5%``, ``200k``, ``1.5M`` or ``20_000``.

        Raises:
            MethodError: it is none.
        """
        if isinstance(text, Budget):
            return text
        found = _WRITTEN.fullmatch(str(text)) if not isinstance(text, bool) else None
        if found is None or not 0 < (amount := float(re.sub("[_,]", "", found[1]))) < math.inf:
            raise MethodError(f"budget: expected a share such as 0.5% or a number such as 200k; found {text!r}.")
        if found[2] == "%":
            return cls(amount / 100, share=True)
        return cls(amount * _UNITS[found[2].lower()], share=False)

    def parameters(self, model: nn.Module) -> int:
        """Return how many parameters that is on a model."""
        whole = sum({id(one): one.numel() for one in model.parameters()}.values())
        return round(self.amount * whole if self.share else self.amount)


@dataclass(frozen=True)
class Fit:
    """A method at the size that meets a budget.

    Attributes:
        method: the method.
        notation: it as text, where it was given as text.
        parameters: what counts of it; ``budget`` is what was asked for, in parameters.
        plan: the method on the model.
    """

    method: Method
    notation: str | None
    parameters: int
    budget: int
    plan: Plan


def fit_budget(
    method: Method | str,
    model: nn.Module,
    budget: Budget | str | float,
    *,
    rule: Rule = "true",
    tolerance: float = TOLERANCE,
    largest: int = LARGEST,
) -> Fit:
    """Return ``method`` at the ranks and lengths at which it trains about ``budget`` parameters on ``model``.

    Of a mixture all sizes change in proportion: ``mam(length=30, rank=512)`` keeps its 30 to 512. With ``?`` in its
    text only the sizes so marked do: ``mam(length=4, rank=?)`` keeps its prefix.

    Args:
        method: a method, or its notation.
        model: a model, on any device; a skeleton without weights will do.
        budget: ``"0.5%"`` of the model, ``"200k"`` parameters, or a number of them.
        rule: what counts: ``true`` for every value that is added, ``paper`` for weight matrices alone (appendix B).
        tolerance: how far the closest size may be from the budget, as a share of it.
        largest: no larger size is tried.

    Raises:
        MethodError: the budget or the method cannot be read.
        PlanError: the budget is larger than the model, the method has no size, makes no sense on this model, or no
            size of it comes close; the message has the nearest budgets that do.

    Example::

        unipetl.attach(model, unipetl.fit_budget("lora(at=ffn)", model, "0.5%").method)
    """
    wanted = Budget.read(budget).parameters(model)
    whole = Budget(1.0, share=True).parameters(model)
    if wanted > whole:
        raise PlanError(
            f"budget: {wanted:,} parameters are more than the model's own {whole:,}, which the method `full` trains. "
            "Expected a share of them such as 0.5%."
        )
    if not sizes(method):
        made = plan(notation.parse(method), model, train_head=False)
        share = f"{made.parameters:,} parameters ({made.share:.3%})"
        raise PlanError(f"budget: {_name(method)} has no size to solve for; it always trains {share} of this model.")

    def cost_of(size: int) -> int:
        return _count(plan(notation.parse(resized(method, size)), model), rule)

    low, high = 1, 1
    while high < largest and cost_of(high) < wanted:
        low, high = high, min(2 * high, largest)
    while low < high:  # the smallest size that reaches the budget
        middle = (low + high) // 2
        low, high = (middle + 1, high) if cost_of(middle) < wanted else (low, middle)
    around = {size: cost_of(size) for size in sorted({max(low - 1, 1), low})}
    best = min(around, key=lambda size: (abs(around[size] - wanted), size))
    if abs(around[best] - wanted) > tolerance * wanted:
        raise PlanError(_refusal(method, wanted, around, model, rule))
    found = resized(method, best)
    text = found if isinstance(found, str) else None
    parsed = notation.parse(found)
    return Fit(parsed, text, around[best], wanted, plan(parsed, model))


def _count(made: Plan, rule: Rule) -> int:
    return made.added_parameters if rule == "true" else sum(one.paper_parameters for one in made.placements)


def _name(method: Method | str) -> str:
    return repr(method) if isinstance(method, str) else "this method"


def _refusal(method: Method | str, wanted: int, around: dict[int, int], model: nn.Module, rule: Rule) -> str:
    whole = Budget(1.0, share=True).parameters(model)
    near = [
        f"{count:,} ({count / whole:.3%}) with {resized(method, size) if isinstance(method, str) else f'size {size}'}"
        for size, count in around.items()
    ]
    text = (
        f"budget: no size of {_name(method)} comes close to {wanted:,} parameters ({wanted / whole:.3%} of the model). "
        f"The nearest: {'; '.join(near)}."
    )
    made = plan(notation.parse(resized(method, min(around))), model)
    shared = sum(group.parameters for group in made.groups)
    if rule == "true" and shared > wanted:
        text += f" Its reparametrising MLP alone has {shared:,}: mlp=none, or count by the paper's rule."
    return text
