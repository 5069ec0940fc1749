"""The paper's experiments: their recipes from one table, and its claims tested on models that fit a small machine.

Names are imported when first used, so that this import is light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unipetl import lazily

_HOMES = {
    "CLAIMS": "unipetl.reproduction.claims",
    "Choice": "unipetl.reproduction.choosing",
    "choose": "unipetl.reproduction.choosing",
    "find_rows": "unipetl.reproduction.paper",
    "findings": "unipetl.reproduction.claims_page",
    "judge": "unipetl.reproduction.verdicts",
    "recipe": "unipetl.reproduction.paper",
    "reproduce": "unipetl.reproduction.running",
    "run_small": "unipetl.reproduction.small",
    "small_study": "unipetl.reproduction.small",
    "small_tasks": "unipetl.reproduction.small_tasks",
    "write_claims": "unipetl.reproduction.claims_page",
    "write_recipes": "unipetl.reproduction.paper",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605

if TYPE_CHECKING:
    from unipetl.reproduction.choosing import Choice as Choice
    from unipetl.reproduction.choosing import choose as choose
    from unipetl.reproduction.claims import CLAIMS as CLAIMS
    from unipetl.reproduction.claims_page import findings as findings
    from unipetl.reproduction.claims_page import write_claims as write_claims
    from unipetl.reproduction.paper import find_rows as find_rows
    from unipetl.reproduction.paper import recipe as recipe
    from unipetl.reproduction.paper import write_recipes as write_recipes
    from unipetl.reproduction.running import reproduce as reproduce
    from unipetl.reproduction.small import run_small as run_small
    from unipetl.reproduction.small import small_study as small_study
    from unipetl.reproduction.small_tasks import small_tasks as small_tasks
    from unipetl.reproduction.verdicts import judge as judge


__getattr__ = lazily.names(__name__, _HOMES)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
