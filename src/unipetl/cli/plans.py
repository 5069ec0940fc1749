"""A plan as a table: the same facts as ``str(plan)``, in the width of the screen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unipetl.cli import screen

if TYPE_CHECKING:
    from unipetl.planning import Plan


def show_plan(plan: Plan) -> None:
    """Write where every change of a plan goes and what it costs."""
    words = ("functional form",) if screen.narrow() else ("functional form", "insertion", "composition")
    columns = ("place", *words, "places", "parameters")
    rows: list[list[object]] = [[row[column] for column in columns] for row in plan.rows()]
    head = set(plan.head)
    for title, sizes in (
        ("task head", [size for name, size in plan.trained if name in head]),
        ("pretrained", [size for name, size in plan.trained if name not in head]),
    ):
        if sizes:
            rows.append([title, "trained in place", *[""] * (len(words) - 1), len(sizes), sum(sizes)])
    screen.show_table(columns, rows, numbers=("places", "parameters"), whole=("place",))
    screen.show(
        f"\n{plan.model_class}: {plan.parameters:,} of {plan.base_parameters:,} parameters trained "
        f"({screen.percent(plan.share)}).\n"
        f"By the paper's rule: {plan.paper_parameters:,} ({screen.percent(plan.paper_share)})."
    )
    for note in plan.notes:
        screen.say(note, style="yellow")
