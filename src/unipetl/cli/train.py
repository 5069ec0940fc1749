"""``unipetl train``: one recipe, a run per seed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unipetl.cli import screen
from unipetl.cli.options import Budget, Json, Rule, examples, read_method
from unipetl.cli.results import result_data, seed_directory, show_results
from unipetl.cli.settings import set_field
from unipetl.cli.watching import hushed, resumable, watched

if TYPE_CHECKING:
    from unipetl.experiment import Recipe

EXAMPLES = examples(
    ("a recipe; run it again to go on after an interruption", "unipetl train recipe.yaml -o runs/first"),
    ("without a file", 'unipetl train --task pronounce -x "lora(rank=8)" --seed 0 --seed 1'),
    ("with training arguments of transformers", "unipetl train recipe.yaml --set training.learning_rate=1e-3"),
    (
        "on files of your own",
        "unipetl train -t csv-classification -m MODEL -x lora --set options.train=a.csv --set options.validation=b.csv",
    ),
    ("at the rank that half a percent buys", "unipetl train -t pronounce -x lora --budget 0.5%"),
    ("the recipe that results, without running it", "unipetl train --task sentiment -x mam --dry-run"),
)
#: Fields of a recipe that are mappings, whose entries are set one by one.
PARTS = ("training", "options")


def command(
    recipe: Annotated[
        Path | None, typer.Argument(metavar="RECIPE", help="A YAML or JSON file; options override it.")
    ] = None,
    task: Annotated[str | None, typer.Option("--task", "-t", metavar="TASK", help="A task's name.")] = None,
    method: Annotated[
        str | None,
        typer.Option("--method", "-x", metavar="METHOD", help="Notation, a YAML file, or none for zero-shot."),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", metavar="MODEL", help="A folder or a hub name; else the task's own.")
    ] = None,
    seed: Annotated[list[int] | None, typer.Option("--seed", help="Repeat it for several runs.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Where the runs go; else below runs/.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="A field of the recipe, training.ARGUMENT or options.OPTION; repeatable.",
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="At most so many training examples.")] = None,
    train_head: Annotated[bool | None, typer.Option("--train-head/--no-train-head", help="Train a task head.")] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Start again from nothing.")] = False,
    budget: Budget = None,
    count: Rule = "true",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the resolved recipe and stop.")] = False,
    as_json: Json = False,
) -> None:
    """Train and evaluate a method on a task, once per seed.

    Each run's directory holds its recipe, its log, its predictions, its metrics and the trained attachment. The same
    command goes on where it was interrupted, and shows what is finished.
    """
    from unipetl.tasks import get_task

    given = {
        "task": task,
        "method": _method(method.replace("?", "1") if method and budget else method),
        "model": model,
        "seeds": seed or None,
        "limit": limit,
        "train_head": train_head,
    }
    chosen = _recipe(recipe, {name: value for name, value in given.items() if value is not None}, settings or ())
    get_task(chosen.task).configure(chosen.options)
    if budget is not None:
        from unipetl.experiment.budget import within

        with hushed():
            chosen = within(chosen, budget, rule=count, method=method if method and "?" in method else None)
    if dry_run:
        screen.show_json(chosen.resolved()) if as_json else screen.show(chosen.to_yaml().rstrip())
        return
    from unipetl.experiment import run

    directory = output or default_directory(chosen)
    results = []
    with resumable("The same command goes on from the last checkpoint."), watched() as watch:
        for one in chosen.seeds:
            listener = watch(f"{chosen.name or chosen.task}, seed {one}")
            path = seed_directory(directory, one)
            results.append(run(chosen, one, path, progress=listener, resume=not restart))
    if as_json:
        data = {"recipe": chosen.resolved(), "directory": str(directory), "runs": [result_data(one) for one in results]}
        screen.show_json(data)
        return
    screen.show(f"{chosen.task}: {chosen.method_text()}\n", style="bold")
    show_results(results)


def default_directory(recipe: Recipe) -> Path:
    """Return a directory that only this recipe has, with a name that a person can read."""
    words = re.sub(r"[^a-z0-9]+", "-", f"{recipe.task} {recipe.name or recipe.method_text()}".lower()).strip("-")
    return Path("runs") / f"{words[:60].rstrip('-')}-{recipe.hash()[:8]}"


def _method(text: str | None) -> str | dict[str, Any] | None:
    """Return a method as a recipe writes it: a file's content as data, other text as it is."""
    if text is not None and text.endswith((".yaml", ".yml", ".json")):
        return read_method(text).plain()
    return text


def _recipe(path: Path | None, given: dict[str, Any], settings: Sequence[str]) -> Recipe:
    """Return the recipe of a file, of options, or of both; options win."""
    from unipetl.experiment import Recipe, load_recipe

    data: dict[str, Any] = {} if path is None else load_recipe(path).resolved()
    data |= given
    for setting in settings:
        set_field(data, setting, PARTS)
    missing = [f"--{name}" for name in ("task", "method") if name not in data]
    if missing:
        raise typer.BadParameter(f"name a recipe file, or give {' and '.join(missing)}.", param_hint="RECIPE")
    return Recipe(**data)
