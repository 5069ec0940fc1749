"""What is to be served, by name: a finished run, or a folder that ``unipetl.save`` wrote; and how it is opened."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, PreTrainedModel

from unipetl.errors import PetlError, ServingError, first_line
from unipetl.experiment.directory import RunDirectory, run_directories
from unipetl.experiment.recipe import Recipe
from unipetl.experiment.running import few_examples, prepare
from unipetl.saved import Saved, holds_attachment, read
from unipetl.serving.lane import signature_of
from unipetl.serving.reader import Reader, plain_reader, reader_of
from unipetl.tasks import Prepared, Task, get_task
from unipetl.tasks.loading import loading
from unipetl.tasks.text_models import load_tokenizer

#: Characters of a name.
LONGEST_NAME = 100


@dataclass(frozen=True)
class Source:
    """A name, and the directory of a run or of a saved attachment."""

    name: str
    path: Path

    @staticmethod
    def parse(text: str) -> Source:
        """Read ``NAME=PATH``, or ``PATH``, which is then called by its last part.

        With several signs of equality the first counts that has a path behind it that exists.
        """
        whole = Path(text)
        splits = [(text[:place], text[place + 1 :]) for place, sign in enumerate(text) if sign == "="]
        named = [Source(name, Path(path)) for name, path in splits if "/" not in name]
        if named and not whole.exists():
            return next((one for one in named if one.path.exists()), named[0])
        name = whole.resolve().name
        if name.startswith("seed-"):
            name = f"{whole.resolve().parent.name}-{name}"
        return Source(name, whole)

    def each(self) -> list[Source]:
        """Return what is served of it: itself, or the runs in an experiment's folder, each called by its seed.

        A single one keeps the name.

        Raises:
            RunError: there is no run.
        """
        paths = [self.path] if self.is_attachment else run_directories(self.path)
        return [Source(self.name if len(paths) == 1 else f"{self.name}-{path.name}", path) for path in paths]

    @property
    def is_attachment(self) -> bool:
        """Whether it is a saved attachment. A folder that holds a recipe is a run, whatever else it holds."""
        return holds_attachment(self.path) and not RunDirectory(self.path).recipe.is_file()


@dataclass
class Opened:
    """A source that has been read, before it is on a model.

    Attributes:
        saved: what was trained, read and checked; None for a run that trained nothing.
        model_class: of the model it was trained on; "" where only ``signature`` is known.
        signature: of the model's lane; None where the class alone says it.
        reader: the task's; None for the one of the lane it goes to.
        model: gives a model for a new lane, and its reader.
        facts: what is told about it.
    """

    source: Source
    saved: Saved | None
    model_class: str
    signature: tuple[object, ...] | None
    reader: Reader | None
    model: Callable[[], tuple[PreTrainedModel, Reader]]
    facts: dict[str, Any]


class Opener:
    """Opens sources; what runs of one task and model have in common is made once.

    Args:
        base: a folder or hub name of the base, for attachments that no run tells a model of; None if there are runs.
        tasks: tasks that are not unipetl's, by name.

    Attributes:
        drawing: held while torch's random numbers are used, of which a process has one sequence.
    """

    def __init__(self, base: str | None = None, tasks: Mapping[str, Task] | None = None) -> None:
        self.base = base
        self._tasks = dict(tasks or {})
        self._known: dict[tuple[str, ...], tuple[Reader, tuple[object, ...]]] = {}
        self.drawing = threading.Lock()
        self._spare: tuple[tuple[str, ...], int, PreTrainedModel] | None = None

    def open(self, source: Source) -> Opened:
        """Read a source; nothing is attached.

        Raises:
            ServingError, RunError, StorageError: there is nothing to serve, or it is damaged.
        """
        _check_name(source.name)
        if source.is_attachment:
            return self._attachment(source)
        return self._run(source)

    def forget(self) -> None:
        """Let go of a model that was loaded to be read from."""
        self._spare = None

    def _run(self, source: Source) -> Opened:
        files = RunDirectory(source.path)
        recipe, seed = files.read_recipe()
        if files.result() is None:
            raise ServingError(f"the run in {str(source.path)!r} is not finished; run its recipe there again.")
        common = (recipe.task, str(recipe.model), repr(sorted(recipe.options.items())))
        if common not in self._known:
            prepared = self._prepared(recipe, seed)
            self._known[common] = reader_of(prepared, str(source.path)), signature_of(prepared.model)
            self._spare = common, seed, prepared.model
        reader, signature = self._known[common]

        def model() -> tuple[PreTrainedModel, Reader]:
            if self._spare is None or self._spare[:2] != (common, seed):
                self._spare = common, seed, self._prepared(recipe, seed).model
            return self._spare[2], reader

        saved = None if recipe.zero_shot else read(files.adapter)
        facts = {"task": recipe.task, "seed": seed, **_facts(saved), "method": recipe.method_text()}
        return Opened(source, saved, "", signature, reader, model, facts)

    def _attachment(self, source: Source) -> Opened:
        saved = read(source.path)
        model_class = str(saved.description["base"].get("model_class"))

        def model() -> tuple[PreTrainedModel, Reader]:
            if self.base is None:
                raise ServingError(
                    f"{str(source.path)!r} is an attachment of a {model_class}, which no run here has; name the base "
                    "with --model."
                )
            with self.drawing:
                return load_base(self.base, model_class, saved)

        facts = {"task": None, "seed": saved.description["seed"], **_facts(saved)}
        return Opened(source, saved, model_class, None, None, model, facts)

    def _prepared(self, recipe: Recipe, seed: int) -> Prepared:
        task = (self._tasks.get(recipe.task) or get_task(recipe.task)).configure(recipe.options)
        with self.drawing:
            return prepare(few_examples(recipe, task, evaluation_limit=2), seed, task)


def _check_name(name: str) -> None:
    """Raise unless a name can stand in an address; one with U+FFFD was not UTF-8 there, and may be any other."""
    fits = name.isprintable() and "/" not in name and "\N{REPLACEMENT CHARACTER}" not in name
    if not fits or name in ("", ".", "..") or len(name) > LONGEST_NAME:
        raise ServingError(
            f"name {name[: LONGEST_NAME + 1]!r}: expected printable text without '/', of at most {LONGEST_NAME} "
            "characters, and not '.' or '..'; on the command line a source is named by NAME=PATH."
        )


def load_base(name: str, model_class: str | None, saved: Saved | None = None) -> tuple[PreTrainedModel, Reader]:
    """Return the model in a folder or on the hub, and a reader for it.

    Args:
        name: the folder or hub name, with a tokenizer.
        model_class: one of transformers' classes; None for the one that the checkpoint names.
        saved: an attachment whose head says the number of labels.

    Raises:
        ServingError: it cannot be loaded.
    """
    try:
        config = AutoConfig.from_pretrained(name)
        chosen = model_class or str((getattr(config, "architectures", None) or ["AutoModel"])[0])
        kind: Any = getattr(transformers, chosen, None)
        if not (isinstance(kind, type) and issubclass(kind, PreTrainedModel)) and chosen != "AutoModel":
            raise ServingError(f"base {name!r}: transformers has no model class {chosen!r}.")
        tokenizer = load_tokenizer(name)
        labels = {} if saved is None else _labels_of(saved, config, kind)
        with loading(0):
            model = kind.from_pretrained(name, **labels)
    except PetlError:
        raise
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise ServingError(f"base {name!r} cannot be loaded: {first_line(error)}") from error
    model.config.pad_token_id = tokenizer.pad_token_id
    return model, plain_reader(model, tokenizer)


def _labels_of(saved: Saved, config: Any, kind: Any) -> dict[str, Any]:
    """Return the number of labels of a saved head: where parameters' shapes depend on it, their first size."""

    def shapes(labels: int) -> dict[str, tuple[int, ...]]:
        changed = deepcopy(config)
        changed.num_labels = labels
        with torch.device("meta"):
            return {key: tuple(one.shape) for key, one in kind(changed).named_parameters()}

    two, three = shapes(2), shapes(3)
    for key in two:
        tensor = saved.tensors.get(f"model/{key}")
        if two[key] != three[key] and tensor is not None and tensor.shape[0] != config.num_labels:
            return {"num_labels": int(tensor.shape[0])}
    return {}


def _facts(saved: Saved | None) -> dict[str, Any]:
    if saved is None:
        return {"method": "none", "parameters": 0, "sha256": None}
    parameters = sum(one.numel() for one in saved.tensors.values())
    return {"method": saved.method().canonical(), "parameters": parameters, "sha256": saved.description["sha256"]}
