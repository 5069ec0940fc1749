"""What ``unipetl reproduce`` shows: plans beside printed shares, results beside printed numbers, verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from unipetl.cli import screen
from unipetl.cli.results import show_comparison

if TYPE_CHECKING:
    from unipetl.reproduction.claims_page import Findings
    from unipetl.reproduction.overview import Planned
    from unipetl.reproduction.running import Reproduced
    from unipetl.reproduction.small import Study


def show_planned(planned: Sequence[Planned], *, as_json: bool) -> None:
    """Write what would run: a table per task, where model and data come from, and what is corrected."""
    from unipetl.reproduction.overview import corrections, printed_score

    corrected = corrections(planned)
    if as_json:
        screen.show_json({"cells": [one.to_dict() for one in planned], "corrections": corrected})
        return
    for task in dict.fromkeys(one.cell.task for one in planned):
        here = [one for one in planned if one.cell.task == task]
        screen.show(f"{here[0].row.place} on {task}: {_sources(here[0])}", style="bold")
        columns = ("row", "method", "printed %", "by the rule %", "of the model %", "trained", "seeds", "FLOPs a run")
        rows: list[list[object]] = [
            [
                one.row.key,
                one.recipe.method_text(),
                "-" if one.printed_share is None else f"{one.printed_share:g}{' *' if one.corrected else ''}",
                "-" if one.rule_share is None else f"{one.rule_share:.3g}",
                f"{one.model_share:.3g}",
                one.parameters,
                len(one.recipe.seeds),
                f"{one.cost.flops:.2g}",
                printed_score(one),
            ]
            for one in here
        ]
        screen.show_table((*columns, "printed score"), rows, numbers=(*columns[2:], "printed score"), whole=("row",))
        screen.show()
    for line in corrected:
        screen.show(f"* {line}")
    _show_other_sizes(planned)
    runs = sum(len(one.recipe.seeds) for one in planned)
    total = sum(one.cost.flops * len(one.recipe.seeds) for one in planned)
    screen.show(f"{screen.counted(runs, 'run')}, about {total:.2g} FLOPs. Notes on each row: --json, or its recipe.")


def _show_other_sizes(planned: Sequence[Planned]) -> None:
    """Say why some rows have no printed numbers."""
    others = dict.fromkeys(one.row.key for one in planned if not one.as_printed)
    if others:
        screen.show(f"Of another size or method than the paper's, whose numbers are left out: {', '.join(others)}.")


def _sources(one: Planned) -> str:
    """Say where the model and the data come from."""
    from unipetl.tasks import get_task

    name = one.recipe.model or ""
    model = f"{name} ({'folder' if Path(name).is_dir() else 'hub'})"
    if one.recipe.options.get("train"):
        return f"model {model}, data {one.recipe.options['train']}"
    return f"model {model}, data {getattr(get_task(one.cell.task), 'hub', '')} (hub)"


def show_reproduced(found: Sequence[Reproduced], directory: Path, *, as_json: bool) -> None:
    """Write results beside the printed numbers."""
    from unipetl.experiment.divergence import MEANING

    if as_json:
        screen.show_json({"path": str(directory), "cells": [one.to_dict() for one in found]})
        return
    rows: list[list[object]] = [
        [
            one.planned.row.key,
            one.planned.cell.task,
            metric,
            one.text(metric) or "-",
            one.planned.printed(metric) or "-",
            len(one.scores.get(metric, {})),
        ]
        for one in found
        for metric in one.planned.cell.scores
    ]
    columns = ("row", "task", "metric", "here", "the paper", "seeds")
    screen.show_table(columns, rows, numbers=columns[3:])
    if any(one.diverged for one in found):
        screen.say(MEANING, style="yellow")
    for one in found:
        for line in one.failures:
            screen.say(f"failed: {one.planned.row.key} on {one.planned.cell.task}, {line}", style="red")
    _show_other_sizes([one.planned for one in found])
    screen.show(f"\nruns in {directory}")


def show_small(study: Study, directory: Path, *, as_json: bool) -> None:
    """Write what a small study would run."""
    if as_json:
        rates = {task.name: {one.label: one.tried(task.kind) for one in study.methods} for task in study.tasks}
        seeds, runs = list(study.seeds), study.runs()
        methods = study.notations
        screen.show_json(
            {
                "path": str(directory),
                "methods": methods,
                "rates": rates,
                "seeds": seeds,
                "runs": runs,
                "tuning_seeds": list(study.tuning_seeds),
            }
        )
        return
    for task in study.tasks:
        rows = [
            [one.label, study.notations[task.name][one.label], ", ".join(f"{rate:g}" for rate in one.tried(task.kind))]
            for one in study.methods
        ]
        screen.show(f"\n{task.name}", style="bold")
        screen.show_table(("method", "notation", "learning rates tried"), rows)
    tuning = ", ".join(map(str, study.tuning_seeds))
    judged = ", ".join(map(str, study.seeds))
    screen.show(
        f"\nat least {screen.counted(study.runs(), 'run')} in {directory}: learning rates with seeds {tuning}, "
        f"then the study with seeds {judged}"
    )


def show_claims(found: Findings, *, as_json: bool) -> None:
    """Write a small study's scores and verdicts."""
    from unipetl.reproduction.claims_page import verdict_text

    if as_json:
        screen.show_json({"path": str(found.path), **found.to_dict()})
        return
    show_comparison(found.comparison)
    rows: list[list[object]] = [
        [one.claim.text, one.task, verdict_text(one)] for one in found.judged if one.verdict != "not tested"
    ]
    screen.show()
    screen.show_table(("claim", "task", "verdict"), rows)
    screen.show(f"\nin {found.path}: claims.md, claims.json; every run in rates/ and study/ there")
