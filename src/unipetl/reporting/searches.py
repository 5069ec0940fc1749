"""The tables of a search: which axes matter, how every value of an axis did, and all points."""

from __future__ import annotations

from unipetl.reporting.sheets import Cell, Group, Head, Sheet, count, percent, plain
from unipetl.search.result import SearchResult


def sheets(found: SearchResult) -> list[Sheet]:
    """Return the tables of a search."""
    made = [_importance(found)] if found.importance else []
    return [*made, _values(found), _points(found)]


def _importance(found: SearchResult) -> Sheet:
    rows = tuple((plain(axis), percent(part)) for axis, part in found.importance.items())
    caption = "What part each axis has in the differences between the scores of complete points (PED-ANOVA)."
    return Sheet(
        "importance", "Which axes matter", caption, (Head("Axis"), Head("Part", number=True)), (Group("", rows),)
    )


def _values(found: SearchResult) -> Sheet:
    groups = []
    for axis in dict.fromkeys(one.axis for one in found.values):
        rows = [one for one in found.values if one.axis == axis]
        if len(rows) > 1:
            cells = ((plain(one.value), count(one.points), _number(one.mean), _number(one.best)) for one in rows)
            groups.append(Group(axis, tuple(cells)))
    heads = (Head("Value"), *(Head(name, number=True) for name in ("Points", f"Mean {found.metric}", "Best")))
    caption = "Complete points by their value on each axis. A sampler tries good values more often."
    return Sheet("values", "How each value did", caption, heads, tuple(groups))


def _points(found: SearchResult) -> Sheet:
    axes = list(dict.fromkeys(name for one in found.tried for name in one.axes))
    varied = [name for name in axes if len({str(one.axes.get(name)) for one in found.tried}) > 1]
    best = {one.number for one in found.best(1)}
    rows = tuple(
        (
            plain(f"point {one.number}"),
            plain(one.state),
            Cell("–") if one.score is None else Cell(f"{one.score:.2f}", one.score, one.number in best),
            count(one.cost),
            *(plain(str(one.axes.get(name, "–"))) for name in varied),
        )
        for one in found.tried
    )
    heads = (Head("Point"), Head("State"), Head(found.metric, number=True), Head("Added", number=True))
    caption = f"Every point that was trained. At most {found.budget:,} added parameters; the task head is not counted."
    return Sheet("points", "All points", caption, (*heads, *(Head(name) for name in varied)), (Group("", rows),))


def _number(value: float) -> Cell:
    return Cell(f"{value:.2f}", value)
