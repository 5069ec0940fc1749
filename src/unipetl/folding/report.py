"""What a fold did, or would do: one row per change, printable."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from unipetl.folding.decide import Decision
from unipetl.folding.steps import Op, Order


@dataclass(frozen=True)
class Row:
    """What becomes of one modification, or of the parameters trained in place.

    Attributes:
        attachment: the attachment's name.
        what, where: the functional form, and the representation it changes.
        places: at how many places.
        into: what it folds into; empty if it does not.
        reason: why it does not; empty if it does.
    """

    attachment: str
    what: str
    where: str
    places: int
    into: str
    reason: str


@dataclass(frozen=True)
class Folding:
    """What a fold did, or would do.

    Attributes:
        rows: one per modification of every active attachment.
        not_plain: why the folded model is no plain model of its class, so that ``save_pretrained`` would write
            what ``from_pretrained`` does not read; empty if it is one.
        settings: what changes in the model's config.
    """

    rows: tuple[Row, ...]
    not_plain: tuple[str, ...]
    settings: dict[str, Any]

    @property
    def complete(self) -> bool:
        """Whether everything that was asked to fold does."""
        return not any(row.reason for row in self.rows)

    @property
    def plain(self) -> bool:
        """Whether the result is a plain model of its class: nothing is left, and its config describes it."""
        return self.complete and not self.not_plain

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready data."""
        rows = [
            {"attachment": r.attachment, "what": r.what, "where": r.where, "places": r.places, "into": r.into,
             "reason": r.reason}
            for r in self.rows
        ]  # fmt: skip
        return {
            "rows": rows, "complete": self.complete, "plain": self.plain, "not_plain": list(self.not_plain),
            "settings": dict(self.settings),
        }  # fmt: skip

    def __str__(self) -> str:
        """Return the report as lines of text."""
        lines = [
            f"{row.attachment}: {row.what} at {row.where}, {row.places} places: "
            + (f"folds into {row.into}" if row.into else f"stays: {row.reason}")
            for row in self.rows
        ]
        lines += [f"config: {name} = {value}" for name, value in self.settings.items()]
        lines += [f"not a plain checkpoint: {reason}" for reason in self.not_plain]
        return "\n".join(lines) or "nothing to fold"


def rows_of(order: Order, decision: Decision, trained: Iterable[tuple[str, int]]) -> tuple[Row, ...]:
    """Return one row per modification, and one per attachment that trains parameters of the model itself."""
    found: dict[tuple[str, str, str], list[Op]] = {}
    for op in order.ops:
        found.setdefault((op.record.name, op.representation, op.placement.label), []).append(op)
    rows = []
    for (name, where, _), ops in found.items():
        first = ops[0]
        target = decision.targets.get(first)
        into = {
            "output": "the weights before it", "input": "the weights after it", "norm": "the norm before it",
            "units": "hidden units of the FFN",
        }  # fmt: skip
        rows.append(
            Row(
                attachment=name,
                what=str(first.placement.modification.form.tag),
                where=where,
                places=len(ops),
                into=into[target.side] if target else "",
                reason=decision.reasons.get(first, ""),
            )
        )
    rows += [Row(name, "trained in place", "", count, "the parameters themselves", "") for name, count in trained]
    return tuple(rows)
