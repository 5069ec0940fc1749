"""``unipetl push``: a run's attachment on the model hub, with a card."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unipetl.cli import screen
from unipetl.cli.options import Json, examples
from unipetl.cli.watching import hushed

EXAMPLES = examples(
    ("look at the card first", "unipetl push runs/first/seed-0 user/name --dry-run card"),
    ("push", "unipetl push runs/first/seed-0 user/name --private"),
)


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run, or a saved attachment.")],
    repository: Annotated[str, typer.Argument(metavar="REPO_ID", help="user/name; made if there is none.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    revision: Annotated[
        str | None, typer.Option(metavar="BRANCH", help="A branch to push to, made if there is none.")
    ] = None,
    base_model: Annotated[
        str | None, typer.Option("--base-model", metavar="NAME", help="The base's name on the hub, for the card.")
    ] = None,
    message: Annotated[str | None, typer.Option("--message", metavar="TEXT", help="The commit's message.")] = None,
    dry_run: Annotated[
        Path | None, typer.Option("--dry-run", metavar="DIR", help="Write what would be pushed here, and push nothing.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Push a run's attachment to the model hub, with a card made from it: method, size, scores, how to load it.

    Two files and the card are pushed; the base's weights stay where they are. Log in with `hf auth login`, or set
    HF_TOKEN. `unipetl.load(model, "user/name")` reads it back.
    """
    from unipetl.experiment import publish

    with hushed():
        found = publish(
            run, repository, private=private, revision=revision, base_model=base_model, message=message, dry_run=dry_run
        )
    if as_json:
        screen.show_json(found.to_dict())
    elif found.folder is not None:
        screen.show(f"{found.folder}: what would be pushed to {repository}; the card is {found.folder / 'README.md'}.")
    else:
        screen.show(f"{repository}: {found.address}")
