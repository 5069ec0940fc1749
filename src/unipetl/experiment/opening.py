"""Finished runs and saved attachments on the model they belong to, for whoever exports, merges or publishes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from unipetl.attaching import activate
from unipetl.errors import RunError, StorageError
from unipetl.experiment.directory import RunDirectory, RunResult
from unipetl.experiment.recipe import Recipe
from unipetl.experiment.running import few_examples, prepare
from unipetl.models import load_model
from unipetl.saved import holds_attachment
from unipetl.storage import load
from unipetl.tasks import Task, get_task


@dataclass(frozen=True)
class Source:
    """Where an attachment lies: a run, whose recipe says its base, or a folder of ``unipetl.save``."""

    path: Path
    attachment: Path
    recipe: Recipe | None = None
    result: RunResult | None = None


@dataclass(frozen=True)
class Opened:
    """A model with attachments, the last of them active.

    Attributes:
        model: the model.
        names: the attachments' names, in the order of their sources.
        base: what the base is called: the recipe's model, or the one given; None for a task's own.
    """

    model: nn.Module
    names: tuple[str, ...]
    base: str | None


def source_of(path: str | Path) -> Source:
    """Return what a path is: a finished run (or an experiment of one), or a folder that ``unipetl.save`` has written.

    A folder that is both is the run, of which the recipe tells the base.

    Raises:
        RunError: the run is not finished, or was zero-shot.
        StorageError: it is neither.
    """
    folder = Path(path)
    if not folder.exists():
        raise StorageError(
            f"{str(folder)!r} does not exist; expected a run, or a folder that unipetl.save has written."
        )
    files = RunDirectory(folder)
    if not files.recipe.is_file():
        if holds_attachment(folder):
            return Source(folder, folder)
        seeds = sorted(one.name for one in folder.glob("seed-*"))
        if len(seeds) == 1:
            return source_of(folder / seeds[0])
        hint = f" It holds several runs ({', '.join(seeds)}); name one of them." if seeds else ""
        raise StorageError(f"{str(folder)!r} is neither a run nor a saved attachment.{hint}")
    recipe, _ = files.read_recipe()
    result = files.result()
    if result is None:
        raise RunError(f"the run in {str(folder)!r} is not finished; run its recipe there again to finish it.")
    if recipe.zero_shot:
        raise RunError(f"the run in {str(folder)!r} is zero-shot: it has no attachment.")
    return Source(folder, files.adapter, recipe, result)


def open_attachments(
    sources: Sequence[Source], *, model: str | None = None, model_class: str | None = None, task: Task | None = None
) -> Opened:
    """Load attachments beside each other into one model.

    Args:
        sources: runs and folders; all must belong to one base.
        model: the base, as a folder or a hub name; None is the first run's own.
        model_class: its class, where the config does not name it.
        task: the run's task, where it is not one of unipetl's.

    Raises:
        RunError: no base is known.
        MismatchError: an attachment belongs to another base.
    """
    base, called = _base(sources[0], model, model_class, task)
    names = []
    for number, source in enumerate(sources):
        name = f"{number + 1}: {source.path}"
        activate(base, None)
        load(base, source.attachment, name=name)
        names.append(name)
    return Opened(base, tuple(names), called)


def _base(first: Source, model: str | None, model_class: str | None, task: Task | None) -> tuple[nn.Module, str | None]:
    if model is not None:
        return load_model(model, model_class), model
    if first.recipe is None:
        raise RunError(
            f"{str(first.path)!r} is an attachment without its base; name that with --model, as a folder or hub name."
        )
    chosen: Any = (task or get_task(first.recipe.task)).configure(first.recipe.options)
    recipe = first.recipe
    prepared = prepare(few_examples(recipe, chosen), recipe.seeds[0], chosen)
    return prepared.model, recipe.model
