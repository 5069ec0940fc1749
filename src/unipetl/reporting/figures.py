"""The figures of a report: scores against parameters (the paper's figures 1, 2 and 4), and learning curves.

Methods carry their number and no name: a figure that is legible on a telephone has no room for names, and the
tables beside it tell them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import TYPE_CHECKING, Any

from unipetl.reporting.experiments import Column, Experiment, Found
from unipetl.reporting.svg import GRID, INK, QUIET, SERIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = "osD^vPX<>*"
LINES = ("solid", "dashed", "dashdot", "dotted")
SIZE = (4.6, 3.6)  # inches of 72 points: near a telephone's width, so that text keeps its size there
EDGE = 0.95  # where the numbers stand, as a part of the panel's width
BANDS = 4  # methods; the bands of more would hide each other


@dataclass(frozen=True)
class Look:
    """How a method is drawn: the same in every figure."""

    number: int
    color: str
    marker: str
    line: str


def look(found: Found, one: Experiment) -> Look:
    """Return how a method is drawn."""
    number = found.number(one.label)
    place = number - 1
    shape = (place + place // len(SERIES)) % len(MARKERS)
    return Look(number, SERIES[place % len(SERIES)], MARKERS[shape], LINES[place // len(SERIES) % len(LINES)])


@dataclass(frozen=True)
class Picture:
    """A figure, the text that stands for it, what its points say (gid -> text), how to read it, what is drawn."""

    figure: Figure
    alternative: str
    tips: dict[str, str]
    reading: str = ""
    drawn: frozenset[str] = frozenset()


def scores(found: Found, column: Column) -> Picture:
    """Draw trained parameters against the metric: points with standard deviations, and lines across.

    A method that trains all parameters is a dashed line, one that trains none a dotted one.
    """
    from matplotlib.ticker import LogLocator, NullFormatter

    figure, axes = _panel("trained parameters, % of the model", column.metric.replace("_", " "))
    lines = [one for one in column.experiments if one.whole or not one.first.parameters]
    points = [one for one in column.experiments if one not in lines]
    tips: dict[str, str] = {}
    heights: list[tuple[Look, float | None, float]] = []
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if _narrow(points) else (1.0,)))
    axes.xaxis.set_major_formatter(_percent)
    axes.xaxis.set_minor_formatter(NullFormatter())
    for one, share in zip(points, apart([100 * one.first.share for one in points]), strict=True):
        how, height = look(found, one), one.mean()
        drawn = axes.errorbar(
            share, height, yerr=one.std(), fmt=how.marker, color=how.color, markersize=6.5, capsize=3, zorder=3
        )
        drawn.lines[0].set_gid(f"point{how.number}")
        tips[f"point{how.number}"] = _said(found, one)
        heights.append((how, share, height))
    for one in lines:
        how, style = look(found, one), (INK, "dashed") if one.whole else (QUIET, "dotted")
        drawn_as: dict[str, Any] = {"color": style[0], "linestyle": style[1], "gid": f"line{how.number}"}
        axes.axhline(one.mean(), xmax=EDGE, linewidth=1.4, zorder=1, **drawn_as)
        if one.whole and one.std() is not None:
            low, high = one.mean() - (one.std() or 0), one.mean() + (one.std() or 0)
            axes.axhspan(low, high, color=GRID, alpha=0.5, linewidth=0, zorder=0)
        tips[f"line{how.number}"] = _said(found, one)
        heights.append((Look(how.number, style[0], "", style[1]), None, one.mean()))
    if points:
        shares = apart([100 * one.first.share for one in points])
        room = max(math.log10(max(shares) / min(shares)), 0.6)
        axes.set_xlim(min(shares) / 10 ** (0.1 * room), max(shares) * 10 ** (0.25 * room))
    axes.margins(y=0.08)
    low, high = axes.get_ylim()
    levels = [height for _, _, height in heights]
    room = 0.04 * (high - low)
    axes.set_ylim(min(low, min(levels) - room), max(high, max(levels) + room))
    _numbers(axes, heights)
    best = " and ".join(f"{one.label} with {one.mean():.2f}" for one in column.best())
    said = f"{column.title}: {len(points)} methods, trained parameters against {column.metric}"
    whole = [f"; {one.label} reaches {one.mean():.2f}" for one in column.experiments if one.whole]
    return Picture(figure, said + (f"; the best is {best}" if best else "") + "".join(whole) + ".", tips)


def curves(found: Found, column: Column, key: str) -> Picture | None:
    """Draw what was logged under ``key``, a line per method: the mean over seeds, and their range if that can be seen.

    Returns:
        None where nothing was logged.
    """
    drawn = [(one, rows) for one in column.experiments if len(rows := series(one, key)) > 1]
    if not drawn:
        return None
    from matplotlib.ticker import MaxNLocator

    figure, axes = _panel("step", key.replace("_", " "))
    tips: dict[str, str] = {}
    ends: list[tuple[Look, float | None, float]] = []
    for one, rows in drawn:
        how = look(found, one)
        steps = [step for step, _ in rows]
        middle = [mean(values) for _, values in rows]
        gid = f"curve{how.number}"
        axes.plot(steps, middle, color=how.color, linestyle=how.line, linewidth=1.5, gid=gid)
        if len(one.runs) > 1 and len(drawn) <= BANDS:
            low, high = [min(values) for _, values in rows], [max(values) for _, values in rows]
            axes.fill_between(steps, low, high, color=how.color, alpha=0.12, linewidth=0)
        tips[gid] = f"{how.number}. {one.label}: {middle[-1]:.4g} at step {steps[-1]}"
        ends.append((how, float(steps[-1]), middle[-1]))
    left, right = axes.get_xlim()
    axes.set_xlim(left, right + 0.12 * (right - left))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _numbers(axes, ends)
    said = f"{column.title}: {key.replace('_', ' ')} by step, a line for each of {len(drawn)} methods."
    bands = " Bands reach from the lowest to the highest seed." if len(drawn) <= BANDS else ""
    return Picture(figure, said, tips, f"Means over seeds.{bands}", frozenset(one.label for one, _ in drawn))


def series(one: Experiment, key: str) -> list[tuple[int, list[float]]]:
    """Return what every run of an experiment logged under ``key``: the step, and a value per seed.

    Steps that only some of the seeds logged, and values that are no numbers, are left out; a step that a resumed run
    logged twice counts once.
    """
    logs = []
    for run in one.runs:
        rows = {row["step"]: float(row[key]) for row in run.log if _number(row.get(key))}
        if rows:
            logs.append(rows)
    shared = set(logs[0]).intersection(*logs) if logs else set()
    return [(step, [rows[step] for rows in logs]) for step in sorted(shared)]


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def apart(shares: Sequence[float]) -> list[float]:
    """Return where points are drawn: those that would lie over each other stand side by side, around their middle."""
    if not shares:
        return []
    logs = [math.log10(share) for share in shares]
    step = 0.022 * max(max(logs) - min(logs), 0.6)
    order = sorted(range(len(logs)), key=lambda at: logs[at])
    places = dict(enumerate(logs))
    clusters: list[list[int]] = []
    for at in order:
        cluster = [at]
        while clusters and _room(clusters[-1], cluster, logs, step):
            cluster = clusters.pop() + cluster
        clusters.append(cluster)
    for cluster in clusters:
        middle = mean(logs[at] for at in cluster)
        for number, at in enumerate(cluster):
            places[at] = middle + (number - (len(cluster) - 1) / 2) * step if len(cluster) > 1 else logs[at]
    return [10 ** places[at] for at in range(len(logs))]


def _room(left: Sequence[int], right: Sequence[int], logs: Sequence[float], step: float) -> bool:
    """Say whether two clusters of points, each drawn ``step`` apart, would touch."""
    between = mean(logs[at] for at in right) - mean(logs[at] for at in left)
    return between < step * (len(left) + len(right)) / 2


def _panel(across: str, up: str) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(across, color=INK, fontsize=11, parse_math=False)
    axes.set_ylabel(up, color=INK, fontsize=11, parse_math=False)
    axes.tick_params(which="both", colors=QUIET, labelcolor=INK, labelsize=10)
    axes.grid(visible=True, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(QUIET)
    return figure, axes


def _narrow(points: Sequence[Experiment]) -> bool:
    """Say whether the points lie so close together that an axis of whole decades would hardly have a number."""
    shares = [one.first.share for one in points]
    return bool(shares) and max(shares) < 20 * min(shares)


def _percent(value: float, place: float) -> str:
    del place
    return f"{value:g}"


def _numbers(axes: Axes, ends: Sequence[tuple[Look, float | None, float]]) -> None:
    """Write every method's number at the right edge, apart from each other, joined to its point or line's end."""
    bottom, top = axes.get_ylim()
    left, right = axes.get_xlim()
    ordered = sorted(ends, key=lambda one: one[2])
    step = (top - bottom) / max(len(ordered) * 1.02, 19)
    places: list[float] = []
    for _, _, height in ordered:
        places.append(max(height, places[-1] + step) if places else height)
    for at in reversed(range(len(places))):  # push back down what was pushed over the top
        limit = top - step / 2 if at == len(places) - 1 else places[at + 1] - step
        places[at] = min(places[at], limit)
    log = axes.get_xscale() == "log"
    edge = 10 ** (math.log10(left) + EDGE * math.log10(right / left)) if log else left + EDGE * (right - left)
    for (how, x, height), place in zip(ordered, places, strict=True):
        joined = {"arrowstyle": "-", "color": how.color, "linewidth": 0.6, "alpha": 0.7, "shrinkA": 0, "shrinkB": 3}
        axes.annotate(
            str(how.number),
            xy=(edge if x is None else x, height),
            xytext=(edge, place),
            fontsize=10,
            color=how.color,
            va="center",
            ha="left",
            arrowprops=joined,
            annotation_clip=False,
        )


def _said(found: Found, one: Experiment) -> str:
    std = one.std()
    spread = "" if std is None else f" ± {std:.2f}"
    return f"{found.number(one.label)}. {one.label}: {one.mean():.2f}{spread} with {one.first.parameters:,} parameters"
