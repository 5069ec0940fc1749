"""``unipetl schema``: the JSON schema of what one writes in YAML, for editors and checks."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from unipetl.cli import screen
from unipetl.cli.options import examples

EXAMPLES = examples(
    ("let an editor complete and check methods", "unipetl schema method > method.schema.json"),
    ("the same for recipes", "unipetl schema recipe > recipe.schema.json"),
)


class Subject(StrEnum):
    """What has a schema."""

    method = "method"
    recipe = "recipe"


def command(subject: Annotated[Subject, typer.Argument(help="What to describe.")] = Subject.method) -> None:
    """Print the JSON schema (draft 2020-12) of a method or a recipe."""
    if subject is Subject.method:
        from unipetl.method import json_schema

        screen.show_json(json_schema())
    else:
        from unipetl.experiment.recipe import recipe_schema

        screen.show_json(recipe_schema())
