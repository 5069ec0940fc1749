"""``unipetl schema``: the JSON schema of what one writes in YAML, for editors and checks."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from unipetl.cli import screen
from unipetl.cli.options import examples

EXAMPLES = examples(
    ("let an editor complete and check methods", "unipetl schema method > method.schema.json"),
    ("the same for what train and compare read", "unipetl schema recipe > recipe.schema.json"),
)


class Subject(StrEnum):
    """What has a schema."""

    method = "method"
    recipe = "recipe"
    plan = "plan"


def command(subject: Annotated[Subject, typer.Argument(help="What to describe.")] = Subject.method) -> None:
    """Print the JSON schema (draft 2020-12) of a method, a recipe or a comparison plan."""
    if subject is Subject.method:
        from unipetl.method import json_schema

        screen.show_json(json_schema())
    elif subject is Subject.recipe:
        from unipetl.experiment import recipe_schema

        screen.show_json(recipe_schema())
    else:
        from unipetl.experiment import plan_schema

        screen.show_json(plan_schema())
