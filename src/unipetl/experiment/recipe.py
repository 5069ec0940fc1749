"""A recipe: one experiment as data. Task, model, method, seeds, and transformers' training arguments.

For example::

    task: sentiment
    method: lora(rank=8)
    seeds: [0, 1, 2]
    training: {learning_rate: 1e-3, num_train_epochs: 3}

Everything but task and method may be left out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from unipetl import notation
from unipetl.errors import MethodError, TaskError, unknown
from unipetl.experiment import arguments
from unipetl.experiment.marked import Checked, Fault, Place, fault, read_as
from unipetl.files import to_yaml, write_text
from unipetl.method import Method, json_schema

#: What ``method:`` says where nothing is attached and nothing trained: the model as it is.
ZERO_SHOT = "none"


def read_method(value: Any) -> Any:
    """Check a method's notation, text or mapping; it stays as it is written."""
    if value is None or (isinstance(value, str) and value.strip().lower() == ZERO_SHOT):
        return ZERO_SHOT
    try:
        method = value if isinstance(value, Method) else _parse(value)
    except MethodError as error:
        raise fault(Fault((), str(error).removeprefix("method: "))) from None
    return method.plain() if isinstance(value, Method) else value


def read_training(value: Any) -> Any:
    """Check training arguments; they come back in their proper types."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise fault(Fault((), f"expected transformers' training arguments as name: value; found {value!r}."))
    fine, wrong = arguments.check(value)
    if wrong:
        raise fault(*wrong)
    return fine


def read_seeds(value: Any) -> Any:
    """Check seeds: one, or a list of different ones."""
    seeds = [value] if isinstance(value, int) else value
    if not isinstance(seeds, (list, tuple)) or not seeds:
        raise fault(Fault((), f"expected a list of whole numbers such as [0, 1, 2]; found {value!r}."))
    for place, seed in enumerate(seeds):
        if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**32:
            raise fault(Fault((place,), f"expected a whole number from 0 to 2^32 - 1; found {seed!r}."))
        if seed in seeds[:place]:
            raise fault(Fault((place,), f"seed {seed} stands there twice."))
    return tuple(seeds)


MethodNotation = Annotated[str | dict[str, Any], BeforeValidator(read_method)]
Training = Annotated[dict[str, Any], BeforeValidator(read_training)]
Seeds = Annotated[tuple[int, ...], BeforeValidator(read_seeds)]
Count = Annotated[int, Field(ge=1, strict=True)]


class Recipe(Checked):
    """One experiment.

    Args:
        task: a task's name.
        method: a method's notation, or ``none`` for the model as it is (zero-shot).
        model: a folder or a name on the hub; None for the task's own model.
        seeds: one run each.
        train_head: whether the head of a classification-like model is trained too.
        limit, evaluation_limit: at most so many training and evaluation examples.
        options: what the task can be told, such as files and lengths; the task knows which.
        training: arguments of transformers' ``TrainingArguments``, by their own names, and ``max_tokens_per_batch``.
        name: for people; it changes nothing.
    """

    task: Annotated[str, Field(min_length=1)]
    method: MethodNotation
    model: str | None = None
    seeds: Seeds = (0,)
    train_head: Annotated[bool, Field(strict=True)] = True
    limit: Count | None = None
    evaluation_limit: Count | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    training: Training = Field(default_factory=dict)
    name: str | None = None

    @property
    def zero_shot(self) -> bool:
        """Whether the model is evaluated as it is."""
        return self.method == ZERO_SHOT

    def parsed(self) -> Method | None:
        """Return the method; None for zero-shot."""
        return None if self.zero_shot else _parse(self.method)

    def method_text(self) -> str:
        """Return the method in one line."""
        return self.method if isinstance(self.method, str) else json.dumps(self.method, ensure_ascii=False)

    def resolved(self) -> dict[str, Any]:
        """Return every field, defaults included, as JSON-ready data."""
        return self.model_dump(mode="json")

    def hash(self) -> str:
        """Return what identifies the experiment: equal for recipes that compute the same.

        The name and the seeds do not count, and a method counts as what it denotes: ``lora`` and
        ``lora(rank=16)`` are one experiment. Without a method, how to train does not count either.
        """
        data = self.resolved()
        del data["name"], data["seeds"]
        if not data["options"]:  # as in the recipes of before there were any
            del data["options"]
        method = self.parsed()
        data["method"] = ZERO_SHOT if method is None else method.plain()
        if method is None:
            keep = ("per_device_eval_batch_size", "generation_num_beams", "generation_max_length")
            data["training"] = {key: value for key, value in data["training"].items() if key in keep}
            del data["limit"], data["train_head"]
        text = json.dumps(data, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_yaml(self) -> str:
        """Return the resolved recipe as YAML."""
        return to_yaml(self.resolved())

    def save(self, path: str | Path) -> Path:
        """Write the resolved recipe as YAML, atomically."""
        write_text(Path(path), self.to_yaml())
        return Path(path)


def load_recipe(path: str | Path, *, tasks: Iterable[str] | None = ()) -> Recipe:
    """Read a recipe from a YAML or JSON file.

    Args:
        path: the file.
        tasks: names of tasks that are not unipetl's and that the recipe may name too; None lets it name any.

    Raises:
        RecipeError: with the file, the line, the field and the near match of everything that is wrong.
    """

    def check(data: Mapping[str, Any]) -> list[Fault]:
        named = task_faults({("task",): data.get("task")}, tasks)
        return named + option_faults({("options",): (data.get("task"), data.get("options"))})

    return read_as(path, Recipe, "recipe", check)


def option_faults(given: Mapping[Place, tuple[Any, Any]]) -> list[Fault]:
    """Return what is wrong with options of unipetl's own tasks, given by place as a task's name and its options."""
    from unipetl.tasks import TASKS

    tasks = {task.name: task for task in TASKS}
    found = []
    for place, (name, options) in given.items():
        if isinstance(name, str) and name in tasks and isinstance(options, Mapping):
            try:
                tasks[name].configure(options)
            except TaskError as error:
                found += [Fault(place, line) for line in str(error).splitlines()]
    return found


def task_faults(named: Mapping[Place, Any], tasks: Iterable[str] | None) -> list[Fault]:
    """Return which of the names, by their places, are neither unipetl's tasks nor among ``tasks``, unless that is None.

    What is no text is left to the fields' own checks.
    """
    if tasks is None:
        return []
    from unipetl.tasks import TASKS

    known = [*(task.name for task in TASKS), *tasks]
    return [
        Fault(place, unknown("task", name, known))
        for place, name in named.items()
        if isinstance(name, str) and name and name not in known
    ]


def recipe_schema() -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of a recipe."""
    schema = Recipe.model_json_schema()
    schema["properties"]["method"] = method_schema()
    schema["properties"]["training"] = arguments.schema()
    schema["properties"]["seeds"] = seeds_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "unipetl recipe"}


def method_schema() -> dict[str, Any]:
    """Return the JSON schema of a method's notation in a recipe."""
    return {
        "description": "A method's notation: text such as lora(rank=8), a mapping, or none.",
        "anyOf": [{"type": ["string", "null"]}, {k: v for k, v in json_schema().items() if k != "$schema"}],
    }


def seeds_schema() -> dict[str, Any]:
    """Return the JSON schema of seeds."""
    seed = {"type": "integer", "minimum": 0, "maximum": 2**32 - 1}
    return {"anyOf": [seed, {"type": "array", "items": seed, "minItems": 1, "uniqueItems": True}], "default": [0]}


def _parse(value: Any) -> Method:
    if isinstance(value, str):
        return notation.parse(value)
    return Method.from_plain(value)
