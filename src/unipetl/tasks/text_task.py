"""What every task on texts has: examples from the hub or from files, options, and a default model."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from unipetl.errors import TaskError
from unipetl.tasks.hub import Hub
from unipetl.tasks.options import SourceOptions, read_options
from unipetl.tasks.sources import Judged, Source, Splits
from unipetl.tasks.task import Prepared, Task


class TextTask(Task):
    """A task on texts; what is particular to one is data on its class.

    Attributes:
        hub: its data set on the hub; None if it lives on a user's files alone.
        default_model: the paper's checkpoint; None if the recipe must name one.
        judged: the split that a run is judged on unless the options say otherwise.
        also: name -> split of the hub: what else is scored.
        options: what the recipe says, and what it leaves open.
    """

    hub: Hub | None = None
    default_model: str | None = None
    judged: Judged = "validation"
    also: ClassVar[Mapping[str, str]] = {}

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        """Read the options.

        Raises:
            TaskError: one of them is unknown or does not fit.
        """
        self.options = read_options(self.options_type(), options or {}, self.name)

    @classmethod
    @abstractmethod
    def options_type(cls) -> type[SourceOptions]:
        """Return the type of the task's options."""

    def configure(self, options: Mapping[str, Any]) -> Self:
        """See [Task.configure][]."""
        return type(self)(options) if options else self

    def prepare(
        self,
        *,
        model: str | None = None,
        limit: int | None = None,
        evaluation_limit: int | None = None,
        seed: int = 0,
    ) -> Prepared:
        """See [Task.prepare][]."""
        chosen = model or self.default_model
        if chosen is None:
            raise TaskError(f"task {self.name!r} has no model of its own: give a folder, or a name on the model hub.")
        source = Source(self.name, self.hub, self.judged, self.also)
        return self.assemble(chosen, source.read(self.options, limit, evaluation_limit), seed)

    @abstractmethod
    def assemble(self, model: str, splits: Splits, seed: int) -> Prepared:
        """Load ``model`` and turn the examples into its ids."""
