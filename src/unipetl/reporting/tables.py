"""The tables of a report as the paper lays them out: a row per method, a column per task, grouped by budget."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from unipetl.experiment.divergence import MEANING, diverged, mark
from unipetl.reporting.experiments import Column, Experiment, Found
from unipetl.reporting.sheets import Cell, Group, Head, Sheet, count, percent, plain, spread

#: Budget groups: the largest share of each, and its name. Methods are compared at equal cost.
BUDGETS: tuple[tuple[float, str], ...] = (
    (0.0, "nothing trained"),
    (0.00105, "up to 0.1 % of the parameters"),  # 0.1 % as it is printed
    (0.01, "0.1 to 1 %"),
    (0.1, "1 to 10 %"),
    (0.999, "more than 10 %"),
)
FULL = "the whole model"
MIXED = "budgets that differ between the tasks"


def budget(one: Experiment) -> str:
    """Return the name of an experiment's budget group."""
    return FULL if one.whole else next((name for top, name in BUDGETS if one.first.share <= top), FULL)


def overview(found: Found) -> Sheet:
    """Return all tasks side by side: methods as rows, their shares and scores as columns."""
    labels = found.labels()
    by_task = [{one.label: one for one in column.experiments} for column in found.columns]
    heads = [Head("No.", number=True), Head("Method")]
    for column in found.columns:
        heads += [Head(f"{column.title}: share", number=True), Head(f"{column.title}: {_metric(column)}", number=True)]
    rows: dict[str, list[tuple[Cell, ...]]] = {}
    for label in labels:
        here = [experiments.get(label) for experiments in by_task]
        groups = {budget(one) for one in here if one is not None}
        cells = [count(found.number(label)), plain(label)]
        for column, one in zip(found.columns, here, strict=True):
            cells += [Cell("–"), Cell("–")] if one is None else [percent(one.first.share), _score(one, column)]
        rows.setdefault(groups.pop() if len(groups) == 1 else MIXED, []).append(tuple(cells))
    caption = (
        "Mean over seeds ± standard deviation of a sample. Share: trained parameters, head included, of the base "
        "model's. Bold: the best of a column among methods that train a part of the model."
    )
    order = (*(name for _, name in BUDGETS), MIXED, FULL)
    return Sheet("overview", "All tasks", caption, tuple(heads), _groups(rows, order), name=1)


def detail(found: Found, column: Column, key: str) -> Sheet:
    """Return one task: every metric, both counts of parameters, seeds, time and memory."""
    names = {name: None for one in column.experiments for run in one.runs for name in run.result.metrics}
    others = [name for name in names if name != column.metric]
    heads = [Head("No.", number=True), Head("Method"), Head("Trained", number=True), Head("Share", number=True)]
    heads += [Head("Paper's share", number=True), Head(_metric(column), number=True)]
    heads += [Head(_words(name), number=True) for name in others]
    heads += [Head("Seeds", number=True), Head("Training, s", number=True), Head("Memory, MiB", number=True)]
    heads += [Head("Notation")]
    rows: dict[str, list[tuple[Cell, ...]]] = {}
    for one in column.experiments:
        results = [run.result for run in one.runs]
        seconds = [result.train_seconds for result in results]
        memory = max(result.peak_memory_bytes for result in results) / 2**20
        cells = [
            count(found.number(one.label)),
            plain(one.label),
            count(one.first.parameters),
            percent(one.first.share),
            percent(one.paper_share),
            _score(one, column),
            *(spread(one.scores(name)) for name in others),
            count(len(results)),
            Cell(f"{sum(seconds) / len(seconds):.1f}", sum(seconds) / len(seconds)),
            Cell(f"{memory:,.0f}", memory),
            plain(one.recipe.method if isinstance(one.recipe.method, str) else "its recipe is below"),
        ]
        rows.setdefault(budget(one), []).append(tuple(cells))
    direction = "higher" if column.greater_is_better else "lower"
    caption = (
        f"{_words(column.metric)}, {direction} is better; the base model has {column.base_parameters:,} parameters. "
        "The paper's share counts weight matrices alone, without biases, norms and task head."
    )
    if any(diverged(run.result) for one in column.experiments for run in one.runs):
        caption += f" {MEANING}"
    order = (*(name for _, name in BUDGETS), FULL)
    return Sheet(key, column.title, caption, tuple(heads), _groups(rows, order), name=1)


def breakdown(found: Found, column: Column, key: str) -> Sheet:
    """Return where each method of a task has its parameters: the paper's Table 1, with places and their cost."""
    heads = ("Place", "Functional form", "Insertion", "Composition")
    groups = []
    for one in column.experiments:
        plan = next((run.plan for run in one.runs if run.plan is not None), None)
        if plan is None:
            rows = _axes_alone(one)
        else:
            rows = [*_placed(plan), *_in_place(plan)]
        if rows:
            groups.append(Group(f"{found.number(one.label)}. {one.label}", tuple(rows)))
    caption = (
        "The axes of every modification, the places that it has in this model, and what they cost. h: the changed "
        "representation; x: what enters its sub-layer; Δh: the change; λ: the attention on learned positions."
    )
    shown = (*(Head(name) for name in heads), Head("Places", number=True), Head("Parameters", number=True))
    return Sheet(key, column.title, caption, shown, tuple(groups))


def failures(found: Found) -> Sheet:
    """Return every run without a result, and why."""
    rows = tuple(
        (plain(one.task), plain(one.label), count(one.seed), plain(one.error), plain(one.message), plain(one.path))
        for one in found.failures
    )
    heads = (Head("Task"), Head("Method"), Head("Seed", number=True), Head("Error"), Head("Reason"), Head("Run"))
    caption = "Runs without a result. They count in no mean above."
    return Sheet("failures", "Failed runs", caption, heads, (Group("", rows),), name=1)


def environments(found: Found) -> Sheet:
    """Return what the runs ran on; a column per environment that differs from the others."""
    seen: dict[tuple[tuple[str, str], ...], int] = {}
    for run in found.runs():
        facts = tuple(_facts(run.environment))
        seen[facts] = seen.get(facts, 0) + 1
    heads = (Head("What"), *(Head(f"{number} {'run' if number == 1 else 'runs'}") for number in seen.values()))
    names = dict.fromkeys(name for facts in seen for name, _ in facts)
    rows = tuple((plain(name), *(plain(dict(facts).get(name, "–")) for facts in seen)) for name in names)
    return Sheet("environment", "Environment", "What the runs ran on.", heads, (Group("", rows),))


def notes(found: Found) -> list[str]:
    """Return what runs said about their data and their metrics, each once."""
    said: dict[str, None] = {}
    for column in found.columns:
        for one in column.experiments:
            for run in one.runs:
                told = run.environment.get("notes")
                for note in told if isinstance(told, list) else ():
                    said[f"{column.title}: {note}"] = None
                signatures = run.environment.get("metrics")
                for name, text in signatures.items() if isinstance(signatures, Mapping) else ():
                    said[f"{column.title}, {name}: {text}"] = None
    return list(said)


def _score(one: Experiment, column: Column) -> Cell:
    cell = spread(one.scores(), best=one in column.best())
    bad = sum(diverged(run.result) for run in one.runs)
    return replace(cell, text=cell.text + mark(bad, len(one.runs)))


def _metric(column: Column) -> str:
    return f"{_words(column.metric)} {'↑' if column.greater_is_better else '↓'}"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _groups(rows: Mapping[str, Sequence[tuple[Cell, ...]]], order: Iterable[str]) -> tuple[Group, ...]:
    return tuple(Group(name, tuple(rows[name])) for name in order if name in rows)


def _placed(plan: Mapping[str, Any]) -> list[tuple[Cell, ...]]:
    """Return a recorded plan's rows: place, form, insertion, composition, number of places, parameters."""
    words = ("place", "functional form", "insertion", "composition")
    return [
        (*(plain(str(row.get(name, ""))) for name in words), _whole(row.get("places")), _whole(row.get("parameters")))
        for row in plan["rows"]
    ]


def _in_place(plan: Mapping[str, Any]) -> list[tuple[Cell, ...]]:
    """Return the model's own parameters that a plan trains: the task head's and the pretrained ones."""
    trained, head = plan["trained"], set(plan["head"])
    chosen: tuple[tuple[str, Callable[[str], bool]], ...] = (
        ("task head", lambda name: name in head),
        ("pretrained parameters", lambda name: name not in head),
    )
    rows: list[tuple[Cell, ...]] = []
    for title, wanted in chosen:
        sizes = [size for name, size in trained.items() if wanted(name)]
        if sizes:
            place = (plain(title), plain("trained in place"), plain(""), plain(""))
            rows.append((*place, count(len(sizes)), count(sum(sizes))))
    return rows


def _whole(value: Any) -> Cell:
    return count(value) if isinstance(value, int) else Cell("–")


def _axes_alone(one: Experiment) -> list[tuple[Cell, ...]]:
    """Return the axes of a method whose run recorded no plan."""
    method = one.recipe.parsed()
    if method is None:
        return []
    unknown = Cell("–")
    return [
        (
            plain(row["representation"]),
            plain(row["functional form"]),
            plain(row["insertion"]),
            plain(row["composition"]),
            unknown,
            unknown,
        )
        for row in method.rows()
    ]


def _facts(environment: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    for name, value in environment.items():
        if name in ("seed", "notes", "metrics"):
            continue
        if isinstance(value, Mapping):
            yield from ((str(inner), str(one)) for inner, one in value.items())
        elif value is not None:
            yield name.replace("_", " "), str(value)
