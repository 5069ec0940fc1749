"""Experiments: train one method, or compare many, and keep everything about a run where a person can read it.

Names are imported when first used, so that this import is light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unipetl import lazily

_HOMES = {
    "ComparePlan": "unipetl.experiment.grid",
    "CompareProgress": "unipetl.experiment.comparing",
    "Comparison": "unipetl.experiment.table",
    "PetlSeq2SeqTrainer": "unipetl.experiment.trainer",
    "PetlTrainer": "unipetl.experiment.trainer",
    "Progress": "unipetl.experiment.progress",
    "Recipe": "unipetl.experiment.recipe",
    "RunResult": "unipetl.experiment.directory",
    "compare": "unipetl.experiment.comparing",
    "demo_plan": "unipetl.experiment.demo",
    "evaluate": "unipetl.experiment.use",
    "export_run": "unipetl.experiment.exchanging",
    "fold_run": "unipetl.experiment.use",
    "import_folder": "unipetl.experiment.exchanging",
    "interval": "unipetl.experiment.sureness",
    "load_plan": "unipetl.experiment.grid",
    "load_recipe": "unipetl.experiment.recipe",
    "merge": "unipetl.experiment.merging",
    "paired": "unipetl.experiment.sureness",
    "plan_schema": "unipetl.experiment.grid",
    "predict": "unipetl.experiment.use",
    "publish": "unipetl.experiment.publishing",
    "recipe_schema": "unipetl.experiment.recipe",
    "report": "unipetl.experiment.table",
    "run": "unipetl.experiment.running",
    "solve": "unipetl.experiment.budget",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605

if TYPE_CHECKING:
    from unipetl.experiment.budget import solve as solve
    from unipetl.experiment.comparing import CompareProgress as CompareProgress
    from unipetl.experiment.comparing import compare as compare
    from unipetl.experiment.demo import demo_plan as demo_plan
    from unipetl.experiment.directory import RunResult as RunResult
    from unipetl.experiment.exchanging import export_run as export_run
    from unipetl.experiment.exchanging import import_folder as import_folder
    from unipetl.experiment.grid import ComparePlan as ComparePlan
    from unipetl.experiment.grid import load_plan as load_plan
    from unipetl.experiment.grid import plan_schema as plan_schema
    from unipetl.experiment.merging import merge as merge
    from unipetl.experiment.progress import Progress as Progress
    from unipetl.experiment.publishing import publish as publish
    from unipetl.experiment.recipe import Recipe as Recipe
    from unipetl.experiment.recipe import load_recipe as load_recipe
    from unipetl.experiment.recipe import recipe_schema as recipe_schema
    from unipetl.experiment.running import run as run
    from unipetl.experiment.sureness import interval as interval
    from unipetl.experiment.sureness import paired as paired
    from unipetl.experiment.table import Comparison as Comparison
    from unipetl.experiment.table import report as report
    from unipetl.experiment.trainer import PetlSeq2SeqTrainer as PetlSeq2SeqTrainer
    from unipetl.experiment.trainer import PetlTrainer as PetlTrainer
    from unipetl.experiment.use import evaluate as evaluate
    from unipetl.experiment.use import fold_run as fold_run
    from unipetl.experiment.use import predict as predict


__getattr__ = lazily.names(__name__, _HOMES)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
