"""``unipetl search``: the best points of the design space under a parameter budget."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unipetl.cli import screen
from unipetl.cli.options import Json, examples
from unipetl.cli.settings import set_field
from unipetl.cli.watching import resumable, searched

if TYPE_CHECKING:
    from unipetl.search import Search, SearchResult

EXAMPLES = examples(
    ("half a per cent of the parameters, forty points", "unipetl search -t sentiment --budget 0.5% --trials 40"),
    ("a search of your own, four runs at once", "unipetl search search.yaml -o runs/mine --jobs 4"),
    ("go on with what was interrupted, or try more points", "unipetl search runs/mine --trials 80"),
    ("fewer choices", 'unipetl search -t sentiment --budget 0.5% --set "space.form=[bottleneck, low_rank]"'),
    ("which choices there are", "unipetl search -t sentiment --budget 0.5% --dry-run"),
    ("the best points again, with seeds of their own", "unipetl compare runs/mine/best.yaml"),
)
PARTS = ("training", "options", "space")


def command(
    definition: Annotated[
        Path | None, typer.Argument(metavar="SEARCH", help="A YAML file, or the directory of a search to go on with.")
    ] = None,
    task: Annotated[str | None, typer.Option("--task", "-t", metavar="TASK", help="A task's name.")] = None,
    budget: Annotated[
        str | None, typer.Option("--budget", "-b", metavar="BUDGET", help="A share such as 0.5%, or a number.")
    ] = None,
    trials: Annotated[int | None, typer.Option("--trials", "-n", min=1, help="Points to train; 30 by default.")] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", metavar="MODEL", help="A folder or a hub name; else the task's own.")
    ] = None,
    seed: Annotated[list[int] | None, typer.Option("--seed", help="Seeds of every point; repeatable.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A field, training.ARGUMENT, options.OPTION or space.AXIS."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Where it goes; else below runs/.")
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Runs at once.")] = 1,
    storage: Annotated[
        str | None, typer.Option("--storage", metavar="URL", help="A storage of Optuna; else an SQLite file in DIR.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what can be chosen, and stop.")] = False,
    as_json: Json = False,
) -> None:
    """Search the design space for the best method that adds at most so many parameters.

    The axes are choices, and only combinations that make sense are drawn; ranks and lengths follow from the budget.
    Each point is a run of its own; those that fall behind are ended early. The same command goes on where it was
    interrupted. Needs Optuna: pip install 'unipetl[search]'.
    """
    given = {"task": task, "budget": budget, "trials": trials, "model": model, "seeds": seed or None}
    chosen, own = _search(definition, {name: one for name, one in given.items() if one is not None}, settings or ())
    directory = output or own
    if dry_run:
        _show_choices(chosen, as_json=as_json)
        return
    from unipetl.files import write_text
    from unipetl.search import search

    with resumable(f"`unipetl search {directory}` goes on."), searched() as listener:
        found = search(chosen, directory, jobs=jobs, storage=storage, progress=listener)
    if any(one.score is not None for one in found.tried):
        from unipetl import reporting

        write_text(directory / "report.html", reporting.to_html(reporting.gather([directory])))
    if as_json:
        screen.show_json({"path": str(directory), **found.to_dict()})
    else:
        _show(found, directory)
    if not found.best():
        raise typer.Exit(1)


def _search(path: Path | None, given: dict[str, Any], settings: Sequence[str]) -> tuple[Search, Path]:
    """Return the search of a file, of a directory, of options, or of both; options win. And where its runs go."""
    from unipetl.errors import RunError
    from unipetl.search import Search, load_search
    from unipetl.search.searching import DEFINITION

    file = path / DEFINITION if path is not None and path.is_dir() else path
    if file is not None and file != path and not file.is_file():
        raise RunError(f"{str(path)!r} is no search: it has no {DEFINITION}.")
    data: dict[str, Any] = {} if file is None else load_search(file).model_dump(mode="json", exclude_defaults=True)
    data |= given
    for setting in settings:
        set_field(data, setting, PARTS)
    missing = [f"--{name}" for name in ("task", "budget") if name not in data]
    if missing:
        raise typer.BadParameter(f"name a search, or give {' and '.join(missing)}.", param_hint="SEARCH")
    chosen = Search(**data)
    if path is not None:
        return chosen, path if path.is_dir() else Path("runs") / path.stem
    return chosen, Path("runs") / f"search-{chosen.task}-{chosen.hash()[:8]}"


def _show_choices(chosen: Search, *, as_json: bool) -> None:
    from unipetl.search.definition import parameters
    from unipetl.search.searching import skeleton, task_of
    from unipetl.search.space import Choices

    model = skeleton(chosen, task_of(chosen, {}))
    base = sum(one.numel() for one in model.parameters())
    budget = parameters(chosen.budget, base)
    choices = Choices(chosen.space, model, budget)
    columns = ("representation", "form", "insertion", "composition")
    rows = [[getattr(shape, name) for name in columns] for shape in choices.shapes]
    if as_json:
        shapes = [dict(zip(columns, row, strict=True)) for row in rows]
        data = {"search": chosen.model_dump(mode="json"), "budget": budget, "base_parameters": base}
        screen.show_json({**data, "changes": shapes, "stacks": list(choices.stacks)})
        return
    screen.show(f"at most {budget:,} of {base:,} parameters; {screen.counted(len(rows), 'change')} make sense here\n")
    screen.show_table(columns, rows)
    space = chosen.space
    more = {
        "where": choices.where,
        "scale": space.scale,
        "stack": choices.stacks,
        "layers": space.layers,
        "split": space.split,
    }
    screen.show("\n" + "\n".join(f"{name}: {', '.join(map(str, values))}" for name, values in more.items()))


def _show(found: SearchResult, directory: Path) -> None:
    import yaml

    ended = {state: sum(one.state == state for one in found.tried) for state in ("complete", "pruned", "failed")}
    counted = ", ".join(f"{number} {state}" for state, number in ended.items() if number)
    screen.show(
        f"{found.task}: {screen.counted(len(found.tried), 'point')} of at most {found.budget:,} parameters; {counted}\n"
    )
    rows: list[list[object]] = [
        [one.number, f"{one.score:.4f}", one.cost, directory_of(one.runs), _point(one.axes)] for one in found.best()
    ]
    screen.show_table(("point", found.metric, "added", "runs", "axes"), rows, numbers=("point", found.metric, "added"))
    for one in found.best(1):
        screen.show(f"\nThe best, point {one.number}:", style="bold")
        screen.show(yaml.safe_dump(one.method, sort_keys=False, default_flow_style=None, allow_unicode=True).rstrip())
    if found.importance:
        screen.show("\nHow much of the difference between scores each axis makes:", style="bold")
        screen.show_table(("axis", "part"), [[name, f"{100 * part:.0f} %"] for name, part in found.importance.items()])
    else:
        screen.show("\nToo few points to say which axes matter.")
    again = f"`unipetl compare {directory / 'best.yaml'}` trains the best again with new seeds."
    screen.say(f"A best of many is partly luck: {again}")
    screen.show(f"\nin {directory}: search.json, best.yaml, report.html")


def directory_of(runs: Sequence[str]) -> str:
    """Return the directory that a point's runs have in common."""
    return str(Path(runs[0]).parent) if runs else ""


def _point(axes: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in axes.items() if value != "–")
