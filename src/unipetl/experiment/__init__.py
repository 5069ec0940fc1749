"""Experiments: train one method, or compare many, and keep everything about a run where a person can read it.

Names are imported when first used, so that this import is light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "PetlSeq2SeqTrainer": "unipetl.experiment.trainer",
    "PetlTrainer": "unipetl.experiment.trainer",
    "Progress": "unipetl.experiment.progress",
    "Recipe": "unipetl.experiment.recipe",
    "RunResult": "unipetl.experiment.directory",
    "evaluate": "unipetl.experiment.use",
    "load_recipe": "unipetl.experiment.recipe",
    "predict": "unipetl.experiment.use",
    "recipe_schema": "unipetl.experiment.recipe",
    "run": "unipetl.experiment.running",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605

if TYPE_CHECKING:
    from unipetl.experiment.directory import RunResult as RunResult
    from unipetl.experiment.progress import Progress as Progress
    from unipetl.experiment.recipe import Recipe as Recipe
    from unipetl.experiment.recipe import load_recipe as load_recipe
    from unipetl.experiment.recipe import recipe_schema as recipe_schema
    from unipetl.experiment.running import run as run
    from unipetl.experiment.trainer import PetlSeq2SeqTrainer as PetlSeq2SeqTrainer
    from unipetl.experiment.trainer import PetlTrainer as PetlTrainer
    from unipetl.experiment.use import evaluate as evaluate
    from unipetl.experiment.use import predict as predict


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'unipetl.experiment' has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
