"""What a method costs, as a table: parameters by the true count and by the paper's rule."""

from __future__ import annotations

from torch import nn

from unipetl.attaching import attachments
from unipetl.errors import AttachError
from unipetl.planning import Plan


class Summary:
    """A printable table of one or more plans."""

    def __init__(self, plans: dict[str, Plan]) -> None:
        self.plans = plans

    def to_dict(self) -> dict[str, object]:
        """Return the summary as JSON-ready data: name -> plan."""
        return {name: plan.to_dict() for name, plan in self.plans.items()}

    def __str__(self) -> str:
        """Return every plan's table under its name."""
        return "\n\n".join(f"{name}\n{plan}" if len(self.plans) > 1 else str(plan) for name, plan in self.plans.items())

    __repr__ = __str__


def summary(model_or_plan: nn.Module | Plan) -> Summary:
    """Return the table of a plan, or of every attachment of a model.

    Columns: place, functional form, insertion, composition, number of places, parameters; then the total, its
    share of the model, and the count by the paper's rule (weight matrices only, appendix B).

    Raises:
        AttachError: the model has no attachment.
    """
    if isinstance(model_or_plan, Plan):
        return Summary({"plan": model_or_plan})
    plans = {one.name: one.plan for one in attachments(model_or_plan)}
    if not plans:
        raise AttachError(f"{type(model_or_plan).__name__} has no attachment to summarise.")
    return Summary(plans)
