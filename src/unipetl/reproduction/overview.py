"""What reproducing rows of the paper would take: methods, shares of parameters beside the printed ones, cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from unipetl import models, planning
from unipetl.errors import PlanError
from unipetl.experiment.recipe import Recipe
from unipetl.method import Method
from unipetl.notation import parse
from unipetl.reproduction.cost import Cost, training_cost
from unipetl.reproduction.notes import NOTES
from unipetl.reproduction.paper import notes, printed
from unipetl.reproduction.row import Cell, Row
from unipetl.reproduction.settings import SETTINGS

if TYPE_CHECKING:
    from torch import nn

#: The size that the paper divides by for BART, and for mBART too: its shares follow from it and from no true size.
PAPER_BASE = {"facebook/bart-large": 409_600_000}


@dataclass(frozen=True)
class Planned:
    """One cell of the paper: what would run, and what it costs.

    Attributes:
        row, cell: which.
        recipe: what would run.
        as_printed: whether the recipe's method is the row's own; with a budget it is of another size, and then what
            the paper prints is not about it.
        printed_share: the share of parameters that the paper prints for this method, in percent.
        rule_share: the method's share by the paper's rule: weight matrices, of 409.6 M for BART and mBART. None for
            a method of one's own that makes sense on the model that runs and none on the paper's.
        model_share: the trained parameters by the paper's rule, as a share of the model that is trained.
        parameters: what is really trained, biases, norms and MLPs included.
        cost: of one run.
    """

    row: Row
    cell: Cell
    recipe: Recipe
    as_printed: bool
    printed_share: float | None
    rule_share: float | None
    model_share: float
    parameters: int
    cost: Cost

    @property
    def corrected(self) -> bool:
        """Whether the printed share is not what the paper's own rule gives."""
        if self.printed_share is None or self.rule_share is None:
            return False
        return f"{self.printed_share:.1f}" != f"{self.rule_share:.1f}"

    def printed(self, metric: str) -> str:
        """Return the number that the paper prints for this method as text, or nothing."""
        return printed(self.cell, metric) if self.as_printed else ""

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready data."""
        return {
            "place": self.row.place, "row": self.row.key, "label": self.row.label, "task": self.cell.task,
            "copied": self.row.copied, "as_printed": self.as_printed,
            "printed": dict(self.cell.scores) if self.as_printed else {},
            "printed_std": dict(self.cell.spread) if self.as_printed else {},
            "printed_share": self.printed_share, "rule_share": self.rule_share, "model_share": self.model_share,
            "corrected": self.corrected, "parameters": self.parameters, "cost": asdict(self.cost),
            "recipe": self.recipe.resolved(), "notes": notes(self.row, self.cell),
        }  # fmt: skip


def planned(row: Row, cell: Cell, recipe: Recipe) -> Planned:
    """Return what a recipe of a cell costs.

    Raises:
        PlanError, DownloadError: the model's dimensions cannot be had, or the method makes no sense on it.
    """
    settings = SETTINGS[cell.task]
    method = recipe.parsed()
    assert method is not None
    model = _skeleton(recipe.model or settings.model)
    made = planning.plan(method, model, train_head=recipe.train_head)
    as_printed = method == parse(row.notation(cell.task))
    return Planned(
        row=row,
        cell=cell,
        recipe=recipe,
        as_printed=as_printed,
        printed_share=row.share if as_printed else None,
        rule_share=_rule_share(row, cell.task, method, as_printed=as_printed),
        model_share=100 * made.paper_share,
        parameters=made.parameters,
        cost=training_cost(model, made, settings, recipe.training),
    )


def _rule_share(row: Row, task: str, method: Method, *, as_printed: bool) -> float | None:
    """Return a share by the paper's rule; None where a method that is not the row's own has no place in its model."""
    try:
        return rule_share(row, task, method)
    except PlanError:
        if as_printed:
            raise
        return None


def rule_share(row: Row, task: str, method: Method | None = None) -> float:
    """Return a share in percent as the paper's own rule gives it, on the model that the paper's shares are of.

    Args:
        row: whose method it is about.
        task: on which its share is asked for.
        method: in place of the row's.
    """
    method = method or parse(row.notation(task))
    if "all" in method.train:
        return 100.0
    name = SETTINGS[task].size_model
    made = planning.plan(method, _skeleton(name))
    return 100 * made.paper_parameters / PAPER_BASE.get(name, made.base_parameters)


def corrections(found: Sequence[Planned]) -> list[str]:
    """Return a sentence for every row whose printed share is not what the paper's own rule gives."""
    lines: dict[str, str] = {}
    for one in found:
        if one.corrected:
            why = next((NOTES[name] for name in one.row.notes if name in ("tiny-share", "lora-share")), "")
            lines[one.row.key] = (
                f"{one.row.place} {one.row.key}: printed {one.printed_share:g} %, by the paper's rule "
                f"{one.rule_share:.2f} %. {why}"
            )
    return list(lines.values())


def printed_score(one: Planned) -> str:
    """Return the main number that the paper prints, or ``-`` where it is about another method or size."""
    return one.printed(SETTINGS[one.cell.task].metric) or "-"


@cache
def _skeleton(name: str) -> nn.Module:
    return models.skeleton(models.resolve_config(name))
