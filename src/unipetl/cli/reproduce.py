"""``unipetl reproduce``: the paper's experiments, and its claims on a small machine."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from unipetl.cli import screen
from unipetl.cli.options import Budget, Json, Rule, examples
from unipetl.cli.reproduced import show_claims, show_planned, show_reproduced, show_small
from unipetl.cli.settings import set_field
from unipetl.cli.train import PARTS
from unipetl.cli.watching import compared, hushed, resumable

if TYPE_CHECKING:
    from unipetl.reproduction.choosing import Choice
    from unipetl.reproduction.small_tasks import SmallTask

EXAMPLES = examples(
    ("what two rows would take, and their share of parameters", "unipetl reproduce table6 --rows mam,lora --dry-run"),
    ("run them, on files of your own", "unipetl reproduce table6 --rows mam,lora --task xsum --data DIR"),
    ("the paper's claims on two small tasks, with seeds", "unipetl reproduce claims"),
    ("every recipe of the paper as a file", "unipetl reproduce recipes -o recipes/paper"),
)
Scale = Literal["paper", "small"]
SMALL_JOBS = 4  # the small study's models are too small to use more than one core each
GO_ON = "The same command goes on with what is missing."


def command(
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="table2, 3, 4, 5, 6 or 12; figure2, 4 or 5; claims; or recipes.")
    ],
    rows: Annotated[str | None, typer.Option("--rows", metavar="ROW,...", help="Rows by their keys; else all.")] = None,
    task: Annotated[str | None, typer.Option("--task", "-t", metavar="TASK", help="One of the tasks alone.")] = None,
    scale: Annotated[
        Scale | None,
        typer.Option("--scale", help="The paper's models and data, or small ones; else paper, and of claims small."),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", metavar="MODEL", help="A folder or a hub name; else the paper's.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="A folder with files of the data, in place of the hub.")
    ] = None,
    seed: Annotated[list[int] | None, typer.Option("--seed", help="In place of the paper's; repeatable.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A field of the recipes, as in `unipetl train`; repeatable."),
    ] = None,
    budget: Budget = None,
    count: Rule = "paper",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Where it goes; else below runs/.")
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", "-j", min=1, help="Runs at once; else 1, and with --scale small one per core."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="With --scale small: so many training examples.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="With --scale small: a few examples and two seeds, to see that all works.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would run, and stop.")] = False,
    as_json: Json = False,
) -> None:
    """Run the paper's experiments again: its tables and figures row by row, or its claims on small models and data.

    Results stand beside the printed numbers, shares of parameters beside the printed ones, with what the paper leaves
    open or prints differently. Finished runs are not made again, so the same command goes on where it was interrupted.
    """
    if target == "recipes":
        _recipes(output, as_json=as_json)
        return
    if target == "claims" and scale == "paper":
        raise typer.BadParameter("claims are tested on small models and data: --scale small.", param_hint="--scale")
    if scale == "small" or target == "claims":
        _refuse({"--rows": rows, "--set": settings, "--budget": budget}, "a table or figure at --scale paper")
        from unipetl.reproduction.small_tasks import small_tasks

        names = (task,) if task else ()
        tasks = partial(small_tasks, names, data=data, model=model, limit=limit, quick=quick)
        at_once = jobs or min(os.cpu_count() or 1, SMALL_JOBS)
        _small(target, task, tasks, output, at_once, seed, quick=quick, dry_run=dry_run, as_json=as_json)
        return
    _refuse({"--quick": quick, "--limit": limit}, "--scale small")
    from unipetl.budget import Budget as Amount
    from unipetl.reproduction.choosing import Choice

    choice = Choice(
        place=target,
        rows=tuple(key.strip() for key in rows.split(",") if key.strip()) if rows else (),
        task=task,
        model=model,
        data=data,
        seeds=tuple(seed or ()),
        budget=None if budget is None else Amount.read(budget),
        rule=count,
        changes=tuple(partial(_changed, setting) for setting in settings or ()),
    )
    _paper(choice, output or Path("runs") / "paper", jobs or 1, dry_run=dry_run, as_json=as_json)


def _changed(setting: str, data: dict[str, Any]) -> None:
    set_field(data, setting, PARTS)


def _refuse(given: dict[str, object], belongs: str) -> None:
    for name, value in given.items():
        if value:
            raise typer.BadParameter(f"it belongs to {belongs}.", param_hint=name)


def _recipes(output: Path | None, *, as_json: bool) -> None:
    from unipetl.reproduction.paper import write_recipes

    folder = output or Path("recipes") / "paper"
    written = write_recipes(folder)
    if as_json:
        screen.show_json({"path": str(folder), "files": [str(path) for path in written]})
    else:
        screen.show(f"{screen.counted(len(written), 'recipe')} in {folder}")


def _paper(choice: Choice, directory: Path, jobs: int, *, dry_run: bool, as_json: bool) -> None:
    from unipetl.reproduction.choosing import choose, without_half_precision
    from unipetl.reproduction.running import check_models_and_data, reproduce

    planned = choose(choice)
    if dry_run:
        show_planned(planned, as_json=as_json)
        return
    import torch

    if not torch.cuda.is_available():
        planned, changed = without_half_precision(planned)
        if changed:
            screen.say("There is no accelerator: training is in full precision, not in half.", style="yellow")
    planned = [one for one in planned if not one.row.copied or choice.rows]
    with hushed():
        check_models_and_data(planned)
    with resumable(GO_ON), compared() as listener:
        found = reproduce(planned, directory, jobs=jobs, progress=listener)
    show_reproduced(found, directory, as_json=as_json)
    failures = [line for one in found for line in one.failures]
    if failures:
        screen.say(f"{screen.counted(len(failures), 'run')} failed. {GO_ON}", style="red")
        raise typer.Exit(1)


def _small(
    target: str,
    task: str | None,
    tasks: Callable[[], tuple[SmallTask, ...]],
    output: Path | None,
    jobs: int,
    seed: list[int] | None,
    *,
    quick: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    from unipetl.reproduction.claims_page import write_claims
    from unipetl.reproduction.small import QUICK_SEEDS, QUICK_TUNING_SEEDS, SEEDS, TUNING_SEEDS, run_small, small_study
    from unipetl.reproduction.small_methods import methods_of

    methods = methods_of(target)
    with hushed():
        study = small_study(
            tasks(),
            methods=methods,
            seeds=seed or (QUICK_SEEDS if quick else SEEDS),
            tuning_seeds=QUICK_TUNING_SEEDS if quick else TUNING_SEEDS,
            name="Small study, quick" if quick else "Small study",
        )
    words = ["small", *([] if target == "claims" else [target]), *([] if task is None else [task])]
    directory = output or Path("runs") / "-".join([*words, "quick"] if quick else words)
    if dry_run:
        show_small(study, directory, as_json=as_json)
        return
    with resumable(GO_ON), compared() as listener:
        run_small(study, directory, jobs=jobs, progress=listener, stage=lambda line: screen.say(line))
    found = write_claims(directory)
    show_claims(found, as_json=as_json)
    if found.comparison.failures:
        screen.say(f"{screen.counted(len(found.comparison.failures), 'run')} failed. {GO_ON}", style="red")
        raise typer.Exit(1)
