"""Examples in columns, each of which still knows where it stood."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from unipetl.errors import TaskError, nearest
from unipetl.tasks.task import shuffle_key


@dataclass(frozen=True)
class Rows:
    """Examples of one split.

    Args:
        source: where they are from, for messages.
        columns: name -> values (examples,).
        place: the place of an example in its source, for messages, such as ``line 7``.
    """

    source: str
    columns: dict[str, list[Any]]
    place: Callable[[int], str]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()))) if self.columns else 0

    def column(self, name: str) -> list[Any]:
        """Return a column.

        Raises:
            TaskError: there is none of this name; the message names the nearest.
        """
        if name not in self.columns:
            near = nearest(name, self.columns)
            hint = f" Did you mean {near!r}?" if near else ""
            raise TaskError(f"{self.source}: there is no column {name!r}.{hint} Columns: {', '.join(self.columns)}.")
        return self.columns[name]

    def texts(self, name: str) -> list[str]:
        """Return a column of texts.

        Raises:
            TaskError: there is none of this name, or one of its values is no text, or none that UTF-8 can hold.
        """
        values = self.column(name)
        for number, value in enumerate(values):
            if not isinstance(value, str):
                found = "nothing" if value is None else f"{type(value).__name__} {value!r}"
                raise TaskError(f"{self.at(number)}: {name!r} should be text; found {found}.")
            self.refuse_surrogates(value, name, number)
        return values

    def refuse_surrogates(self, text: str, name: str, number: int) -> None:
        """Refuse a text with half of a surrogate pair, which JSON's escapes can write and no tokenizer reads.

        Raises:
            TaskError: it has one; the message names the example and the place in the text.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise TaskError(
                f"{self.at(number)}: character {error.start + 1} of {name!r} is {text[error.start]!r}, half of a "
                "surrogate pair and no character. Write the whole pair, or leave it out."
            ) from None

    def unpacked(self, name: str) -> Rows:
        """Return the examples with the fields of column ``name``, if it holds objects, as columns of their own."""
        values = self.columns.get(name)
        if not values or not all(isinstance(value, dict) for value in values):
            return self
        fields = dict.fromkeys(field for value in values for field in value)
        inner = {field: [value.get(field) for value in values] for field in fields}
        return Rows(self.source, {**self.columns, **inner}, self.place)

    def at(self, number: int) -> str:
        """Return an example's source and place."""
        return f"{self.source}, {self.place(number)}"

    def select(self, numbers: Sequence[int]) -> Rows:
        """Return the examples of these numbers, in this order."""
        kept = {name: [values[number] for number in numbers] for name, values in self.columns.items()}
        return Rows(self.source, kept, lambda number: self.place(numbers[number]))

    def first(self, count: int | None) -> Rows:
        """Return the first ``count`` examples, or all."""
        return self if count is None or count >= len(self) else self.select(range(count))

    def sample(self, count: int | None) -> Rows:
        """Return ``count`` examples, or all: an arbitrary choice, the same every time, in the source's order."""
        return self if count is None or count >= len(self) else self.parted(count)[0]

    def parted(self, count: int) -> tuple[Rows, Rows]:
        """Return [sample][]'s ``count`` examples, and the others."""
        order = sorted(range(len(self)), key=lambda number: shuffle_key(str(number)))
        return self.select(sorted(order[:count])), self.select(sorted(order[count:]))
