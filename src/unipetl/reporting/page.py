"""A report as one HTML page that needs no network: styles and scripts are inside, and nothing else may be loaded.

Everything from files goes through a template that escapes it. The page's security policy allows exactly its own
style sheet and its own script, by their checksums, so that even text that slipped through could run nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import unipetl
from unipetl.reporting import figures, tables
from unipetl.reporting.experiments import Column, Experiment, Found
from unipetl.reporting.svg import SERIES, Drawings

TEMPLATES = "templates"


@dataclass(frozen=True)
class Figure:
    """A drawn figure of the page: its caption, its SVG, and its legend as number, class of the colour, and name."""

    caption: str
    svg: str
    legend: tuple[tuple[int, str, str], ...]


@dataclass(frozen=True)
class Command:
    """How to make an experiment again: its name, the command line, and the recipe it needs where text cannot say it."""

    title: str
    line: str
    recipe: str = ""


def to_html(found: Found) -> str:
    """Return the page."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("unipetl.reporting", TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    drawings = Drawings()
    scores = [_scores(found, column, drawings, place) for place, column in enumerate(found.columns)]
    curves = [one for place, column in enumerate(found.columns) for one in _curves(found, column, drawings, place)]
    sheets = [tables.detail(found, column, f"task{place}") for place, column in enumerate(found.columns)]
    if len(found.columns) > 1:
        sheets = [tables.overview(found), *sheets]
    breakdowns = [tables.breakdown(found, column, f"places{place}") for place, column in enumerate(found.columns)]
    style = _read("page.css") + drawings.rules() + "\n"
    script = _read("page.js")
    return environment.get_template("page.html").render(
        title=found.title,
        summary=_summary(found),
        figures=_marked(scores),
        curves=_marked(curves),
        tables=sheets,
        breakdowns=[one for one in breakdowns if one.groups],
        failures=tables.failures(found) if found.failures else None,
        environment=tables.environments(found),
        notes=tables.notes(found),
        sources=found.sources,
        more=found.sheets,
        commands=list(commands(found)),
        version=unipetl.__version__,
        style=Markup(style),
        script=Markup(script),
        policy=_policy(style, script),
    )


def commands(found: Found) -> Iterator[Command]:
    """Return a command for every experiment that makes it again: every setting is on the line, or in a recipe."""
    for column in found.columns:
        for one in column.experiments:
            yield command(one, f"{column.title}: {one.label}")


def command(one: Experiment, title: str) -> Command:
    """Return the command that makes an experiment again."""
    recipe = one.recipe
    seeds = [word for run in one.runs for word in ("--seed", str(run.result.seed))]
    if not isinstance(recipe.method, str):
        text = type(recipe)(**{**recipe.resolved(), "seeds": [run.result.seed for run in one.runs]}).to_yaml()
        return Command(title, "unipetl train recipe.yaml", text)
    words = ["unipetl", "train", "--task", recipe.task, "--method", recipe.method, *seeds]
    if recipe.model is not None:
        words += ["--model", recipe.model]
    if recipe.limit is not None:
        words += ["--limit", str(recipe.limit)]
    if not recipe.train_head:
        words.append("--no-train-head")
    settings: dict[str, Any] = {f"training.{name}": value for name, value in recipe.training.items()}
    settings |= {f"options.{name}": value for name, value in recipe.options.items()}
    if recipe.evaluation_limit is not None:
        settings["evaluation_limit"] = recipe.evaluation_limit
    for name, value in settings.items():
        words += ["--set", f"{name}={json.dumps(value)}"]
    return Command(title, shlex.join(words))


def _summary(found: Found) -> str:
    """Return how many methods, tasks and runs there are, in one sentence."""
    parts = [
        _counted(len(found.labels()), "method"),
        f"on {_counted(len(found.columns), 'task')}",
        f"in {_counted(len(found.runs()), 'finished run')}",
    ]
    more = [f"{len(found.failures)} failed"] if found.failures else []
    more += [f"{found.missing} not made yet"] if found.missing else []
    return " ".join(parts) + (f"; {' and '.join(more)}." if more else ".")


def _scores(found: Found, column: Column, drawings: Drawings, place: int) -> Figure:
    picture = figures.scores(found, column)
    svg = drawings.add(picture.figure, f"scores{place}", picture.alternative, picture.tips)
    caption = (
        f"{column.title}. Mean over seeds, bars are standard deviations; the dashed line is full fine-tuning with its "
        "standard deviation as a band, the dotted one trains nothing. Points that would overlap stand side by side."
    )
    lines = {one.label for one in column.experiments if one.whole or not one.first.parameters}
    return Figure(caption, svg, tuple((n, "" if name in lines else c, name) for n, c, name in _legend(found, column)))


def _curves(found: Found, column: Column, drawings: Drawings, place: int) -> Iterator[Figure]:
    logged = {name for one in column.experiments for run in one.runs for row in run.log for name in row}
    metric = f"eval_{column.metric}"
    wanted = ("loss", metric if metric in logged else "eval_loss")
    said = {"loss": "training loss", "eval_loss": "development loss", metric: f"{column.metric} during training"}
    for number, key in enumerate(wanted):
        picture = figures.curves(found, column, key)
        if picture is not None:
            svg = drawings.add(picture.figure, f"curves{place}-{number}", picture.alternative, picture.tips)
            caption = f"{column.title}: {said[key].replace('_', ' ')}. {picture.reading}"
            legend = tuple(entry for entry in _legend(found, column) if entry[2] in picture.drawn)
            yield Figure(caption, svg, legend)


def _legend(found: Found, column: Column) -> tuple[tuple[int, str, str], ...]:
    numbers = sorted((found.number(one.label), one.label) for one in column.experiments)
    return tuple((number, f"s{(number - 1) % len(SERIES)}", label) for number, label in numbers)


def _marked(drawn: list[Figure]) -> list[tuple[Figure, Any]]:
    from markupsafe import Markup

    return [(one, Markup(one.svg)) for one in drawn]


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _read(name: str) -> str:
    return files("unipetl.reporting").joinpath(TEMPLATES, name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    """Return a content security policy that allows these two texts and nothing else."""
    allowed = (
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in (style, script)
    )
    style_hash, script_hash = allowed
    return f"default-src 'none'; style-src {style_hash}; script-src {script_hash}; base-uri 'none'; form-action 'none'"
