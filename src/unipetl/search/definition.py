"""A search as data: a task, a budget, and which values of the axes may be chosen.

For example::

    task: sentiment
    budget: 0.5 %
    trials: 40
    training: {num_train_epochs: 1, per_device_train_batch_size: 8}
    space: {form: [bottleneck, low_rank], learning_rate: [1e-3, 5e-3]}
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field

from unipetl.budget import Budget
from unipetl.errors import MethodError, TaskError
from unipetl.experiment.marked import Checked, Fault, fault, read_as
from unipetl.experiment.recipe import Count, Recipe, Seeds, Training, option_faults, task_faults
from unipetl.files import write_text
from unipetl.method import Method
from unipetl.search.space import Space

#: How often a run is judged while it trains, unless the training arguments say: five times.
JUDGED = {"eval_strategy": "steps", "eval_steps": 0.2}


def read_budget(value: Any) -> Any:
    """Check a budget: ``0.5 %`` of the model's parameters, or their number; it stays as it is written."""
    try:
        parameters(value, 1_000_000_000)
    except TaskError as error:
        raise fault(Fault((), str(error))) from None
    return value


def parameters(budget: str | int, base: int) -> int:
    """Return how many parameters a budget is of a model of ``base``.

    Raises:
        TaskError: it is neither a share in percent nor a number such as ``200k``, or not positive.
    """
    try:
        found = Budget.read(str(budget).strip() if isinstance(budget, str) else budget)
        number = round(found.amount * base) if found.share else round(found.amount)
    except MethodError as error:
        raise TaskError(str(error).removeprefix("budget: ")) from None
    if number < 1:
        raise TaskError(f"expected a share such as 0.5% or a number such as 200k, not less than 1; found {budget!r}.")
    return number


class Search(Checked):
    """A search.

    Args:
        task: a task's name.
        budget: what a method may add to the model at most: a share such as ``0.5 %``, or a number of parameters. The
            task head, which all methods share, is not counted.
        trials: how many points are trained.
        space: which values of the axes may be chosen.
        model, limit, evaluation_limit, options, training: as in a [Recipe][unipetl.experiment.Recipe].
        seeds: every point is trained with each, and its score is the mean.
        sampler: ``tpe`` learns from the points before; ``random`` does not.
        pruner: which runs are ended early, by their metric while they train: ``median`` those below the others'
            median, ``hyperband`` by successive halving; ``none`` ends none.
        seed: what the sampler's choices depend on.
        name: for people.
    """

    task: Annotated[str, Field(min_length=1)]
    budget: Annotated[str | int, BeforeValidator(read_budget)]
    trials: Count = 30
    space: Space = Space()
    model: str | None = None
    limit: Count | None = None
    evaluation_limit: Count | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    training: Training = Field(default_factory=dict)
    seeds: Seeds = (0,)
    sampler: Literal["tpe", "random"] = "tpe"
    pruner: Literal["median", "hyperband", "none"] = "median"
    seed: Annotated[int, Field(ge=0, strict=True)] = 0
    name: str | None = None

    def recipe(self, method: Method, learning_rate: float | None = None, name: str | None = None) -> Recipe:
        """Return the recipe that trains a point."""
        training = {**self.training}
        if self.pruner != "none" and "eval_strategy" not in training:
            training |= JUDGED
        if learning_rate is not None:
            training["learning_rate"] = learning_rate
        return Recipe(
            task=self.task,
            method=method.plain(),
            model=self.model,
            seeds=self.seeds,
            limit=self.limit,
            evaluation_limit=self.evaluation_limit,
            options=self.options,
            training=training,
            name=name,
        )

    def hash(self) -> str:
        """Return what identifies the search: everything but how many points it tries, and its name."""
        data = self.model_dump(mode="json")
        for name in ("trials", "name"):
            del data[name]
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]

    def save(self, path: str | Path) -> Path:
        """Write the search as YAML, atomically."""
        data = self.model_dump(mode="json", exclude_defaults=True)
        write_text(Path(path), yaml.safe_dump(data, sort_keys=False, allow_unicode=True))
        return Path(path)


def load_search(path: str | Path, *, tasks: tuple[str, ...] | None = ()) -> Search:
    """Read a search from a YAML or JSON file.

    Args:
        path: the file.
        tasks: names of tasks that are not unipetl's and that it may name too; None lets it name any.

    Raises:
        RecipeError: with the file, the line, the field and the near match of everything that is wrong.
    """

    def check(data: Mapping[str, Any]) -> list[Fault]:
        named = task_faults({("task",): data.get("task")}, tasks)
        return named + option_faults({("options",): (data.get("task"), data.get("options"))})

    return read_as(path, Search, "search", check)
