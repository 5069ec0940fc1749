"""``unipetl schema``: the JSON schema of what one writes in YAML, for editors and checks."""

from __future__ import annotations

from typing import Annotated

import typer

from unipetl.cli import screen
from unipetl.cli.options import examples

EXAMPLES = examples(
    ("let an editor complete and check methods", "unipetl schema method > method.schema.json"),
    ("the same for what train and compare read", "unipetl schema recipe > recipe.schema.json"),
)


SUBJECTS = ("method", "recipe", "plan")


def command(
    subject: Annotated[str, typer.Argument(metavar="[SUBJECT]", help="method, recipe or plan.")] = "method",
) -> None:
    """Print the JSON schema (draft 2020-12) of a method, a recipe or a comparison plan."""
    if subject not in SUBJECTS:
        from unipetl.errors import unknown

        raise typer.BadParameter(unknown("subject", subject, SUBJECTS), param_hint="SUBJECT")
    if subject == "method":
        from unipetl.method import json_schema

        screen.show_json(json_schema())
    elif subject == "recipe":
        from unipetl.experiment import recipe_schema

        screen.show_json(recipe_schema())
    else:
        from unipetl.experiment import plan_schema

        screen.show_json(plan_schema())
