"""The plan itself: where every change goes and what it costs, as immutable, printable data."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from unipetl.architectures import Architecture, Site
from unipetl.forms import Form, Shape
from unipetl.method import Method, Modification


@dataclass(frozen=True, slots=True)
class Placement:
    """One change at one site.

    Attributes:
        key: its name, stable across runs, orders and model classes of a family.
        group: the name of what it shares with other placements, or None.
        index: its place among those that share.
    """

    key: str
    label: str
    site: Site
    modification: Modification
    shape: Shape
    group: str | None
    index: int
    parameters: int
    paper_parameters: int


@dataclass(frozen=True, slots=True)
class Group:
    """A module that the placements of one stack and kind of attention share."""

    key: str
    label: str
    form: Form
    shapes: tuple[Shape, ...]
    parameters: int


@dataclass(frozen=True)
class Plan:
    """A method on a model: printable, immutable, executed by [attach][unipetl.attaching.attach].

    Attributes:
        method: the method.
        model_class, model_type: what it was planned for.
        base: path of the base model inside the model.
        architecture: the table of its places.
        placements: every change, in the order of the computation.
        groups: what placements share.
        trained: the pretrained or head parameters that are trained too, with their sizes.
        stacks: for each stack its module, the module whose result enters its blocks (or ""), and its first block.
        head: the parameters of the task head, if there is one.
        base_parameters: size of the model itself.
        notes: what the method names and the plan does not reach, and ranks beyond a whole matrix's; a sentence each.
    """

    method: Method
    model_class: str
    model_type: str
    base: str
    architecture: Architecture
    placements: tuple[Placement, ...]
    groups: tuple[Group, ...]
    trained: tuple[tuple[str, int], ...]
    stacks: tuple[tuple[str, str, str], ...]
    head: tuple[str, ...]
    base_parameters: int
    notes: tuple[str, ...] = ()

    @property
    def parameters(self) -> int:
        """The number of trained values: the changes', and the trained pretrained ones and head."""
        return self.added_parameters + sum(size for _, size in self.trained)

    @property
    def added_parameters(self) -> int:
        """The number of values the method adds to the model."""
        return sum(one.parameters for one in self.placements) + sum(group.parameters for group in self.groups)

    @property
    def paper_parameters(self) -> int:
        """The count by the paper's rule (appendix B): weight matrices only, no biases, norms, MLP or head.

        Pretrained parameters that the method trains (BitFit, full fine-tuning) count, the task head does not.
        """
        head = set(self.head)
        trained = sum(size for name, size in self.trained if name not in head)
        return sum(one.paper_parameters for one in self.placements) + trained

    @property
    def share(self) -> float:
        """``parameters`` as a fraction of the base model's."""
        return self.parameters / max(self.base_parameters, 1)

    @property
    def paper_share(self) -> float:
        """``paper_parameters`` as a fraction of the base model's."""
        return self.paper_parameters / max(self.base_parameters, 1)

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per kind of place: where, what, how many places and parameters."""
        rows: dict[tuple[str, ...], dict[str, Any]] = {}
        for one in self.placements:
            where = re.sub(r"\.\d+\.", ".*.", one.site.name)
            row = rows.setdefault(
                (where, one.label),
                {
                    "place": where,
                    "layers": [],
                    **one.modification.row(),
                    "places": 0,
                    "parameters": 0,
                    "paper parameters": 0,
                },
            )
            row["layers"].append(one.site.layer)
            row["places"] += 1
            row["parameters"] += one.parameters
            row["paper parameters"] += one.paper_parameters
        for group in self.groups:
            rows[(group.key, "shared")] = {
                "place": group.key, "layers": [], "functional form": "reparametrisation (shared)", "insertion": "",
                "representation": "", "composition": "", "places": 1,
                "parameters": group.parameters, "paper parameters": 0,
            }  # fmt: skip
        return list(rows.values())

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as JSON-ready data."""
        return {
            "model_class": self.model_class, "model_type": self.model_type, "method": self.method.plain(),
            "rows": self.rows(), "trained": dict(self.trained),
            "parameters": self.parameters, "share": self.share, "paper_parameters": self.paper_parameters,
            "paper_share": self.paper_share, "base_parameters": self.base_parameters, "notes": list(self.notes),
        }  # fmt: skip

    def __str__(self) -> str:
        """Return the plan as a table."""
        columns = ("place", "functional form", "insertion", "composition", "places", "parameters")
        table = [
            [str(row[c]) if not isinstance(row[c], int) else f"{row[c]:,}" for c in columns] for row in self.rows()
        ]
        for title, names in (("task head", set(self.head)), ("pretrained", None)):
            sizes = [n for name, n in self.trained if (name in names if names is not None else name not in self.head)]
            if sizes:
                table.append([title, "trained in place", "", "", f"{len(sizes):,}", f"{sum(sizes):,}"])
        widths = [max([len(c), *(len(line[i]) for line in table)]) for i, c in enumerate(columns)]
        lines = ["  ".join(c.ljust(w) for c, w in zip(columns, widths, strict=True)).rstrip()]
        lines.append("  ".join("-" * w for w in widths))
        lines += ["  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in table]
        lines.append(
            f"{self.model_class}: {self.parameters:,} of {self.base_parameters:,} parameters trained "
            f"({self.share:.3%}); by the paper's rule {self.paper_parameters:,} ({self.paper_share:.3%})."
        )
        return "\n".join([*lines, *self.notes])
