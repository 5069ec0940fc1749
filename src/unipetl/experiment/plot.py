"""The picture of a comparison: trained parameters against the metric, one panel per task."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING

from unipetl.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from unipetl.experiment.table import Comparison, Row, Table

INK, QUIET = "#222222", "#999999"


def draw(comparison: Comparison, path: Path) -> Path:
    """Draw a comparison as a PNG file, atomically.

    A method that trains all parameters is a dashed line, one that trains none a dotted one; the others are points with
    the standard deviation over seeds.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2 * len(comparison.tables), 5.4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(comparison.tables), squeeze=False)[0]
    for panel, table in zip(panels, comparison.tables, strict=True):
        _panel(panel, table)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=130)
    write_atomically(path, lambda temporary: _write(temporary, content.getvalue()))
    return path


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _panel(axes: Axes, table: Table) -> None:
    points = [row for row in table.rows if 0 < row.parameters < table.base_parameters]
    lines = [row for row in table.rows if row not in points]
    title = f"{table.task}  (base model: {table.base_parameters:,} parameters)"
    axes.set_title(title, fontsize=11, color=INK, parse_math=False)
    axes.set_ylabel(table.metric.replace("_", " "))
    axes.set_xlabel("trained parameters")
    axes.set_xscale("log")
    axes.grid(True, color="#eeeeee", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    for number, row in enumerate(points):
        axes.errorbar(
            row.parameters, row.mean, yerr=row.std, fmt="o", color=f"C{number % 10}", markersize=6, capsize=3, zorder=3
        )
    if points:
        low, high = min(row.parameters for row in points), max(row.parameters for row in points)
        axes.set_xlim(low / 1.6, max(high * 1.6, low * 4) * (high / low) ** 0.45)
    for row in lines:
        dashed = row.parameters > 0
        axes.axhline(
            row.mean, color=INK if dashed else QUIET, linestyle="--" if dashed else ":", linewidth=1.2, zorder=1
        )
    values = [row.mean for row in table.rows]
    margin = 0.06 * max(max(values) - min(values), 1e-9)
    axes.set_ylim(min(values) - margin, max(values) + margin)
    _labels(axes, points, lines)


def _labels(axes: Axes, points: list[Row], lines: list[Row]) -> None:
    """Write every name at the right edge, in the order of the scores and apart from each other, joined to its point."""
    left, right = axes.get_xlim()
    bottom, top = axes.get_ylim()
    rows = sorted([*points, *lines], key=lambda row: row.mean)
    step = (top - bottom) / max(len(rows) * 1.05, 20)
    places: list[float] = []
    for row in rows:
        places.append(max(row.mean, places[-1] + step) if places else row.mean)
    for at in reversed(range(len(places))):  # push back down what was pushed over the top
        limit = top - step / 2 if at == len(places) - 1 else places[at + 1] - step
        places[at] = min(places[at], limit)
    x = 10 ** (math.log10(right) - 0.28 * (math.log10(right) - math.log10(left)))
    numbers = {id(row): number for number, row in enumerate(points)}
    for row, place in zip(rows, places, strict=True):
        number = numbers.get(id(row))
        point = number is not None
        color = f"C{(number or 0) % 10}" if point else INK if row.parameters else QUIET
        axes.annotate(
            row.label,
            xy=(row.parameters if point else x, row.mean),
            xytext=(x, place),
            fontsize=8.5,
            color=color,
            va="center",
            ha="left",
            parse_math=False,
            bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.85},
            arrowprops=None if not point else {"arrowstyle": "-", "color": color, "linewidth": 0.6, "alpha": 0.6},
            zorder=4,
        )
