"""The option of the embedded tasks: which examples a run is judged on.

Settings such as learning rates are to be chosen on other examples than those that the result is told of. Both tasks
keep some that are neither learnt nor judged on by default: ``evaluate_on: development`` judges a run on them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict

from unipetl.tasks.options import read_options
from unipetl.tasks.task import Task

T = TypeVar("T")


class JudgedOnOptions(BaseModel):
    """What an embedded task can be told.

    Args:
        evaluate_on: ``test``, the examples it is judged on by default, or ``development``, others.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    evaluate_on: Literal["test", "development"] = "test"


class JudgedOn(Task):
    """A task whose examples are one list: first those it is judged on, then those it learns from, then others.

    Attributes:
        options: what the recipe says.
    """

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        """Read the options.

        Raises:
            TaskError: one of them is unknown or does not fit.
        """
        self.options = read_options(JudgedOnOptions, options or {}, self.name)

    def configure(self, options: Mapping[str, Any]) -> Self:
        """See [Task.configure][unipetl.tasks.task.Task.configure]."""
        return type(self)(options) if options else self

    def parts(self, examples: Sequence[T], evaluation: int, train: int) -> tuple[Sequence[T], Sequence[T]]:
        """Return the examples to judge on, and those to learn from, of which there are so many."""
        learnt = examples[evaluation : evaluation + train]
        if self.options.evaluate_on == "development":
            return examples[evaluation + train :][:evaluation], learnt
        return examples[:evaluation], learnt
