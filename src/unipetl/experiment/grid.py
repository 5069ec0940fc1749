"""A comparison as data: methods × tasks × models × seeds, with shared and particular training arguments.

For example::

    tasks: [pronounce, sentiment]
    seeds: [0, 1]
    training: {num_train_epochs: 3, learning_rate: 1e-3}
    methods: {zero-shot: none, lora: lora(rank=8), full: {method: full, training: {learning_rate: 1e-4}}}

With ``models: [roberta-base, bert-base-uncased]`` every task runs on each. A task may be a mapping with its own
``model``, limits, ``options``, ``training``, and ``methods`` that differ there, on all models or by the model
(``methods: {lora: {models: {roberta-base: lora(rank=4)}}}``). Data sets of one's own stand side by side under names
of their own, with the task that reads them::

    tasks:
      reviews: {task: csv-classification, model: MODEL, options: {train: reviews.csv}}
      news: {task: csv-classification, model: MODEL, options: {train: news.csv}}
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from unipetl.errors import unknown
from unipetl.experiment import arguments
from unipetl.experiment.folder_names import colliding, wrong_with
from unipetl.experiment.marked import Checked, Fault, Place, fault, read_as
from unipetl.experiment.recipe import (
    Count,
    MethodNotation,
    Recipe,
    Seeds,
    Training,
    method_schema,
    option_faults,
    seeds_schema,
    task_faults,
)
from unipetl.files import to_yaml, write_text


class MethodPart(BaseModel):
    """One method of a comparison: its notation and what is particular to its training."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: MethodNotation
    train_head: Annotated[bool, Field(strict=True)] = True
    training: Training = Field(default_factory=dict)


class Override(BaseModel):
    """What is different about a method on one task; ``models`` are methods by the model, of a plan of several."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: MethodNotation | None = None
    models: dict[str, MethodNotation] = Field(default_factory=dict)
    training: Training = Field(default_factory=dict)

    def on(self, model: str | None, method: str | dict[str, Any]) -> str | dict[str, Any]:
        """Return what a method is here, on one of the plan's models (None: on the task's own)."""
        own = method if self.method is None else self.method
        return own if model is None else self.models.get(model, own)


class TaskPart(BaseModel):
    """One task of a comparison; ``task`` is its name where the key in the plan is another one, for people."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    task: Annotated[str, Field(min_length=1)] | None = None
    model: str | None = None
    limit: Count | None = None
    evaluation_limit: Count | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    training: Training = Field(default_factory=dict)
    methods: dict[str, Override] = Field(default_factory=dict)


def _tasks(value: Any) -> Any:
    if isinstance(value, str):
        value = [value]
    if isinstance(value, (list, tuple)):
        for place, name in enumerate(value):
            if not isinstance(name, str) or name in value[:place]:
                raise fault(Fault((place,), f"expected the name of a task, once; found {name!r}."))
        value = {name: {} for name in value}
    if not isinstance(value, Mapping) or not value:
        raise fault(Fault((), f"expected names of tasks, or a mapping of them; found {value!r}."))
    parts = {name: _part(part) for name, part in value.items()}
    own = [name for name, part in parts.items() if not isinstance(part, Mapping) or part.get("task")]
    wrong = _wrong_names(own, all_names=list(parts))
    if wrong:
        raise fault(*wrong)
    return parts


def _part(value: Any) -> Any:
    """Return what a plan says of a task as a mapping: nothing, the task's name alone, or more."""
    if value is None:
        return {}
    return {"task": value} if isinstance(value, str) else value


def _wrong_names(names: list[Any], all_names: list[Any]) -> list[Fault]:
    """Return what is wrong with the names that a plan gives its data sets, which become folders."""
    wrong = []
    for name in names:
        if not isinstance(name, str):
            wrong.append(Fault((str(name),), f"expected a name as text; found {name!r}. Put it in quotes."))
        elif why := wrong_with(name):
            wrong.append(Fault((name,), f"the name becomes a folder, and it {why}; choose another one."))
    twice = None if wrong or not names else colliding(map(str, all_names))
    if twice:
        wrong.append(Fault((twice[1],), f"{twice[0]!r} is there too, and both are one folder on some file systems."))
    return wrong


def _methods(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        for place, one in enumerate(value):
            if not isinstance(one, str) or one in value[:place]:
                raise fault(Fault((place,), f"expected a method's text notation, once; found {one!r}."))
        value = {one: one for one in value}
    if not isinstance(value, Mapping) or not value:
        raise fault(Fault((), f"expected a mapping of labels to methods, or a list of methods; found {value!r}."))
    return {str(label): one if _is_part(one) else {"method": one} for label, one in value.items()}


def _models(value: Any) -> Any:
    names = [value] if isinstance(value, str) else value
    for place, name in enumerate(names if isinstance(names, (list, tuple)) else ()):
        if not isinstance(name, str) or not name or name in names[:place]:
            raise fault(Fault((place,), f"expected a folder or a name on the hub, once; found {name!r}."))
    return names


def _is_part(value: Any) -> bool:
    return isinstance(value, MethodPart) or (isinstance(value, Mapping) and "modifications" not in value)


class Cell(NamedTuple):
    """One recipe of a comparison, with the label of its method, and the model if it is one of several.

    ``task`` is the name in the plan, for people and folders; ``recipe.task`` is the task that reads the data.
    """

    task: str
    label: str
    recipe: Recipe
    model: str | None = None

    @property
    def title(self) -> str:
        """The task, and the model if it is one of several: what has a table of its own."""
        return self.task if self.model is None else f"{self.task}, {self.model}"

    def folder(self) -> str:
        """Return where its seeds' runs lie: a name for people, and the hash for sure."""
        plain = re.sub(r"[^0-9A-Za-z]+", "_", self.label).strip("_")[:60] or "method"
        return f"runs/{self.task}/{plain}-{self.recipe.hash()[:8]}"


class ComparePlan(Checked):
    """A grid of experiments.

    Args:
        tasks: names of tasks, or a mapping of them to what is particular there. A part with a ``task`` may have any
            name that makes a folder, so that one task stands there with several data sets.
        methods: label -> method; a method is its notation or a [MethodPart][]. A list labels each by its text.
        models: every task runs on each, but for those with a model of their own; none is the task's own.
        seeds: every method runs on every task with each.
        limit, evaluation_limit, training: for all, where neither task nor method says otherwise. A training
            argument is taken from the method on the task, else the method, the task, or here.
        name: for people.
    """

    tasks: Annotated[dict[str, TaskPart], BeforeValidator(_tasks)]
    methods: Annotated[dict[str, MethodPart], BeforeValidator(_methods)]
    models: Annotated[tuple[str, ...], BeforeValidator(_models)] = ()
    seeds: Seeds = (0,)
    limit: Count | None = None
    evaluation_limit: Count | None = None
    training: Training = Field(default_factory=dict)
    name: str | None = None

    @model_validator(mode="after")
    def _only_compared_methods(self) -> ComparePlan:
        for task, part in self.tasks.items():
            for label in part.methods:
                if label not in self.methods:
                    raise fault(Fault(("tasks", task, "methods", label), unknown("method", label, self.methods)))
            self._only_compared_models(task, part)
        return self

    def _only_compared_models(self, task: str, part: TaskPart) -> None:
        for label, here in part.methods.items():
            for model in here.models:
                place = ("tasks", task, "methods", label, "models", model)
                if part.model:
                    raise fault(Fault(place, f"the task has a model of its own, {part.model!r}; give `method` alone."))
                if model not in self.models:
                    raise fault(Fault(place, unknown("model of this plan", model, self.models)))

    def cells(self) -> Iterator[Cell]:
        """Return every recipe, task by task and model by model, in the order of the methods."""
        grid = (
            (task, part, model, label)
            for task, part in self.tasks.items()
            for model in ((None,) if part.model or not self.models else self.models)
            for label in self.methods
        )
        for task, part, model, label in grid:
            one = self.methods[label]
            here = part.methods.get(label, Override())
            recipe = Recipe(
                task=part.task or task,
                method=here.on(model, one.method),
                model=part.model or model,
                seeds=self.seeds,
                train_head=one.train_head,
                limit=part.limit or self.limit,
                evaluation_limit=part.evaluation_limit or self.evaluation_limit,
                options=part.options,
                training={**self.training, **part.training, **one.training, **here.training},
                name=label,
            )
            yield Cell(task, label, recipe, model)

    def save(self, path: str | Path) -> Path:
        """Write the plan as YAML, atomically."""
        data = self.model_dump(mode="json", exclude_defaults=True)
        write_text(Path(path), to_yaml(data))
        return Path(path)


def load_plan(path: str | Path, *, tasks: Iterable[str] | None = ()) -> ComparePlan:
    """Read a comparison plan from a YAML or JSON file.

    Args:
        path: the file.
        tasks: names of tasks that are not unipetl's and that the plan may name too, such as the mapping that
            [compare][unipetl.experiment.compare] takes; None lets it name any.

    Raises:
        RecipeError: with the file, the line, the field and the near match of everything that is wrong.
    """

    def check(data: Mapping[str, Any]) -> list[Fault]:
        unknown_ones = [_hinted(one) for one in task_faults(_named_tasks(data), tasks)]
        return unknown_ones + option_faults(_task_options(data))

    return read_as(path, ComparePlan, "comparison plan", check)


def _hinted(one: Fault) -> Fault:
    """Return a fault with an unknown task that says how a name of one's own is given, where it is the plan's name."""
    if len(one.place) != 2:
        return one
    hint = " A name of your own needs the task that reads its data, as in `reviews: {task: csv-classification}`."
    return Fault(one.place, one.message + hint)


def _task_options(data: Mapping[str, Any]) -> dict[Place, tuple[Any, Any]]:
    """Return the tasks of a plan's data and their options, by place."""
    given = data.get("tasks")
    parts = given.items() if isinstance(given, Mapping) else ()
    return {
        ("tasks", str(name), "options"): (_task_of(name, part), part.get("options"))
        for name, part in parts
        if isinstance(part, Mapping)
    }


def _task_of(name: Any, part: Any) -> Any:
    """Return the task of a plan's part, as yet unchecked: the one it names, else the key."""
    named = part.get("task") if isinstance(part, Mapping) else part
    return name if named is None or not isinstance(named, (str, Mapping)) else named


def _named_tasks(data: Mapping[str, Any]) -> dict[Place, Any]:
    """Return the tasks that a plan's data names, by their places; what is no list of names has none."""
    given = data.get("tasks")
    if isinstance(given, Mapping):
        named = {name: _task_of(name, part) for name, part in given.items()}
        return {("tasks", str(name)) + (() if task is name else ("task",)): task for name, task in named.items()}
    if isinstance(given, list):
        return {("tasks", place): name for place, name in enumerate(given)}
    return {("tasks",): given}


def plan_schema() -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of a comparison plan."""
    schema = ComparePlan.model_json_schema()
    training, method = arguments.schema(), method_schema()
    for part in (schema, *schema["$defs"].values()):
        properties = part.get("properties", {})
        if "training" in properties:
            properties["training"] = training
        if "method" in properties:
            properties["method"] = method
    schema["$defs"]["Override"]["properties"]["models"]["additionalProperties"] = method
    tasks, methods = schema["properties"]["tasks"], schema["properties"]["methods"]
    names = {"type": "array", "items": {"type": "string"}, "minItems": 1, "uniqueItems": True}
    part = {"$ref": "#/$defs/MethodPart"}
    tasks["additionalProperties"] = {"anyOf": [tasks["additionalProperties"], {"type": ["string", "null"]}]}
    schema["properties"]["tasks"] = {"anyOf": [{"type": "string"}, names, tasks]}
    schema["properties"]["methods"] = {
        "anyOf": [names, {**methods, "additionalProperties": {"anyOf": [part, method]}}],
    }
    schema["properties"]["seeds"] = seeds_schema()
    schema["properties"]["models"] = {"anyOf": [{"type": "string"}, {**names, "minItems": 0}], "default": []}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "unipetl comparison plan"}
