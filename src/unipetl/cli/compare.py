"""``unipetl compare``: many methods side by side, resumable."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from unipetl.cli import screen
from unipetl.cli.options import Budget, Json, Rule, examples
from unipetl.cli.results import show_comparison
from unipetl.cli.watching import compared, hushed, resumable

if TYPE_CHECKING:
    from unipetl.experiment import ComparePlan

EXAMPLES = examples(
    ("every method on two small real tasks, in minutes", "unipetl compare --demo --quick"),
    ("a plan of your own, four runs at once", "unipetl compare plan.yaml -o runs/mine --jobs 4"),
    ("go on with what was interrupted", "unipetl compare runs/mine"),
    ("every method at the size that half a percent buys", "unipetl compare plan.yaml --budget 0.5%"),
    ("on a Ray cluster", "unipetl compare plan.yaml --ray auto"),
    ("what would run", "unipetl compare plan.yaml --dry-run"),
)
DEMO_JOBS = 4  # the demo's models are too small to use more than one core each


def command(
    plan: Annotated[
        Path | None, typer.Argument(metavar="PLAN", help="A YAML file, or the directory of a comparison to go on with.")
    ] = None,
    demo: Annotated[bool, typer.Option("--demo", help="Compare on the embedded tasks.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="With --demo: one seed and fewer examples.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Where it goes; else below runs/.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", min=1, help="Runs at once; else 1, and in the demo one per core.")
    ] = None,
    ray: Annotated[
        str | None, typer.Option("--ray", metavar="ADDRESS", help="Run on a Ray cluster, such as auto or HOST:6379.")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace the plan of another comparison there; its runs stay.")
    ] = False,
    budget: Budget = None,
    count: Rule = "true",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would run, and stop.")] = False,
    as_json: Json = False,
) -> None:
    """Run every method of a plan on every task with every seed, and put the results side by side.

    Finished runs are not made again, so the same command goes on where it was interrupted, and a plan with more
    methods, tasks or seeds adds to what is there. The directory gets comparison.json, comparison.md and
    comparison.png.
    """
    if (plan is None) is not demo:
        raise typer.BadParameter("name a plan, or give --demo.", param_hint="PLAN")
    if quick and not demo:
        raise typer.BadParameter("it belongs to --demo.", param_hint="--quick")
    chosen, own = _demo(quick=quick) if plan is None else _read(plan)
    if budget is not None:
        chosen = _within(chosen, budget, count)
    directory = output or own
    replace = replace or (demo and output is None)  # an earlier version's demo gives way to this one's
    if dry_run:
        _show_plan(chosen, directory, as_json=as_json)
        return
    from unipetl.experiment import compare

    at_once = jobs or (min(os.cpu_count() or 1, DEMO_JOBS) if demo else 1)
    again = f"`unipetl compare {directory}` goes on with what is missing."
    with resumable(again), compared() as listener:
        found = compare(chosen, directory, jobs=at_once, progress=listener, replace=replace, ray=ray)
    if as_json:
        screen.show_json({"path": str(directory), **found.to_dict()})
    else:
        show_comparison(found)
        screen.show(f"\nin {directory}: comparison.json, comparison.md, comparison.png")
    if found.failures:
        screen.say(f"{screen.counted(len(found.failures), 'run')} failed. {again}", style="red")
        raise typer.Exit(1)


def _demo(*, quick: bool) -> tuple[ComparePlan, Path]:
    from unipetl.experiment import demo_plan

    with hushed():
        return demo_plan(quick=quick), Path("runs") / ("demo-quick" if quick else "demo")


def _within(plan: ComparePlan, budget: str, count: Literal["true", "paper"]) -> ComparePlan:
    from unipetl.experiment.budget import all_within

    with hushed():
        return all_within(plan, budget, rule=count)


def _read(path: Path) -> tuple[ComparePlan, Path]:
    """Return the plan in a file or in a comparison's directory, and where its runs go."""
    from unipetl.errors import RunError
    from unipetl.experiment import load_plan

    if not path.is_dir():
        return load_plan(path), Path("runs") / path.stem
    if not (path / "plan.yaml").is_file():
        raise RunError(f"{str(path)!r} is no comparison: it has no plan.yaml.")
    return load_plan(path / "plan.yaml"), path


def _show_plan(plan: ComparePlan, directory: Path, *, as_json: bool) -> None:
    cells = list(plan.cells())
    if as_json:
        screen.show_json(
            {"path": str(directory), "plan": plan.model_dump(mode="json"), "runs": len(cells) * len(plan.seeds)}
        )
        return
    rows = [[one.title, one.label, one.recipe.method_text(), str(list(plan.seeds))] for one in cells]
    screen.show_table(("task", "method", "notation", "seeds"), rows)
    screen.show(f"\n{screen.counted(len(cells) * len(plan.seeds), 'run')} in {directory}")
