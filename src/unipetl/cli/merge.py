"""``unipetl merge``: several attachments of one base as one."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from unipetl.cli import screen
from unipetl.cli.options import Base, Class, Json, examples
from unipetl.cli.watching import hushed

EXAMPLES = examples(
    ("the weighted sum, exactly", "unipetl merge runs/a runs/b --weights 0.7,0.3 -o both"),
    ("TIES at a rank, with its error", "unipetl merge runs/a runs/b runs/c --how ties --rank 8 -o merged"),
    ("saved attachments, whose base must be named", "unipetl merge a b --how average -m user/base -o both"),
)


class How(StrEnum):
    """The ways to merge."""

    sum = "sum"
    average = "average"
    stack = "stack"
    ties = "ties"
    dare = "dare"
    svd = "svd"


def command(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN...", help="Finished runs, or saved attachments.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Where to save the result; it must be new.")],
    how: Annotated[How, typer.Option("--how", help="What to compute; see docs/arithmetic.md.")] = How.sum,
    weights: Annotated[
        str | None, typer.Option("--weights", "-w", metavar="A,B,...", help="One number for each (1 if not given).")
    ] = None,
    rank: Annotated[
        int | None, typer.Option(min=1, help="The result's rank: for svd, ties and dare.", show_default=False)
    ] = None,
    density: Annotated[
        float | None, typer.Option(help="The share of values that ties and dare keep.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(help="What dare drops depends on it.")] = 0,
    model: Base = None,
    model_class: Class = None,
    name: Annotated[str, typer.Option(help="The result's name.")] = "merged",
    as_json: Json = False,
) -> None:
    """Merge attachments of one base, and say what function the result is: exactly, or with which error.

    sum, average and stack are exact where the algebra allows and refused elsewhere; svd, ties and dare approximate.
    """
    numbers = None if weights is None else _numbers(weights)
    from unipetl.experiment import merge

    with hushed():
        found = merge(
            runs, out, how=how.value, weights=numbers, rank=rank, density=density, seed=seed, model=model,
            model_class=model_class, name=name,
        )  # fmt: skip
    if as_json:
        screen.show_json(found.to_dict())
        return
    screen.show(f"{found.path}: {found.parameters:,} values; {found.law}.")
    if found.exact:
        screen.show("Exact: no step of it is an approximation.")
        return
    place = max(found.errors, key=lambda one: found.errors[one])
    screen.show(
        f"Approximated at {screen.counted(len(found.errors), 'place')}, with a relative error of at most "
        f"{found.errors[place]:.2g} ({place})."
    )


def _numbers(text: str) -> list[float]:
    try:
        return [float(one) for one in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"expected numbers with commas between them, found {text!r}.") from None
