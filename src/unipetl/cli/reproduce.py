"""``unipetl reproduce``: the paper's experiments, and its claims on a small machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from unipetl.cli import screen
from unipetl.cli.options import Json, examples
from unipetl.cli.watching import compared, hushed, resumable

if TYPE_CHECKING:
    from unipetl.reproduction.claims_page import Findings
    from unipetl.reproduction.small import Study

EXAMPLES = examples(
    ("the paper's claims on two small tasks, with seeds and intervals", "unipetl reproduce claims --scale small"),
    ("with SST-2 from files of your own", "unipetl reproduce claims --scale small --data DIR"),
)
Scale = Literal["paper", "small"]


def command(
    target: Annotated[str, typer.Argument(metavar="TARGET", help="A table or figure of the paper, or claims.")],
    scale: Annotated[Scale, typer.Option("--scale", help="The paper's models and data, or small ones.")] = "paper",
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="A folder with files of the data, in place of the hub.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", metavar="MODEL", help="A folder or a hub name; else the paper's.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Where it goes; else below runs/.")
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Runs at once.")] = 1,
    quick: Annotated[
        bool, typer.Option("--quick", help="With --scale small: a few examples and two seeds, to see that all works.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would run, and stop.")] = False,
    as_json: Json = False,
) -> None:
    """Run the paper's experiments again.

    Finished runs are not made again, so the same command goes on where it was interrupted.
    """
    if target != "claims" or scale != "small":
        raise typer.BadParameter("only claims with --scale small for now.", param_hint="TARGET")
    _claims(data, model, output, jobs, quick=quick, dry_run=dry_run, as_json=as_json)


def _claims(
    data: Path | None, model: str | None, output: Path | None, jobs: int, *, quick: bool, dry_run: bool, as_json: bool
) -> None:
    from unipetl.reproduction.claims_page import write_claims
    from unipetl.reproduction.small import QUICK_SEEDS, SEEDS, run_small, small_study
    from unipetl.reproduction.small_tasks import small_tasks

    with hushed():
        study = small_study(
            small_tasks(data=data, model=model, quick=quick),
            seeds=QUICK_SEEDS if quick else SEEDS,
            name="Small study, quick" if quick else "Small study",
        )
    directory = output or Path("runs") / ("small-quick" if quick else "small")
    if dry_run:
        _show_study(study, directory, as_json=as_json)
        return
    with resumable("The same command goes on with what is missing."), compared() as listener:
        run_small(study, directory, jobs=jobs, progress=listener, stage=lambda line: screen.say(line))
    found = write_claims(directory)
    if as_json:
        screen.show_json({"path": str(directory), **found.to_dict()})
    else:
        _show_claims(found)
        screen.show(f"\nin {directory}: claims.md, claims.json; every run in {directory}/rates and {directory}/study")
    if found.comparison.failures:
        screen.say(f"{screen.counted(len(found.comparison.failures), 'run')} failed.", style="red")
        raise typer.Exit(1)


def _show_study(study: Study, directory: Path, *, as_json: bool) -> None:
    if as_json:
        rates = {task.name: {one.label: one.tried(task.kind) for one in study.methods} for task in study.tasks}
        screen.show_json(
            {
                "path": str(directory),
                "methods": study.notations,
                "rates": rates,
                "seeds": list(study.seeds),
                "runs": study.runs(),
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
    screen.show(f"\n{screen.counted(study.runs(), 'run')} in {directory}, seeds {list(study.seeds)}")


def _show_claims(found: Findings) -> None:
    from unipetl.reproduction.claims_page import verdict_text

    rows: list[list[object]] = [[one.claim.text, one.task, verdict_text(one)] for one in found.judged]
    screen.show_table(("claim", "task", "verdict"), rows)
