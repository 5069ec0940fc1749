"""A data set on the model hub, fetched once into the cache of ``datasets``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import datasets

from unipetl.errors import DownloadError
from unipetl.tasks.rows import Rows


@dataclass(frozen=True)
class Hub:
    """Where a task's data lies on the hub.

    Args:
        name, config, revision: as ``datasets.load_dataset`` takes them.
        splits: the task's name of a split -> the hub's, where they differ.
    """

    name: str
    config: str | None = None
    revision: str | None = None
    splits: dict[str, str] = field(default_factory=dict)

    def load(self, split: str) -> Rows:
        """Return a split; it is fetched where it is not in the cache.

        Raises:
            DownloadError: it cannot be had; the message says what would work.
        """
        wanted = self.splits.get(split, split)
        try:
            found = datasets.load_dataset(self.name, self.config, split=wanted, revision=self.revision)
        except Exception as error:  # datasets and its transports raise whatever they like
            raise DownloadError(self._refusal(split, error)) from error
        assert isinstance(found, datasets.Dataset)
        columns: dict[str, list[Any]] = {name: list(found[name]) for name in found.column_names}
        return Rows(f"{self}, {wanted}", columns, lambda number: f"row {number + 1}")

    def __str__(self) -> str:
        return f"{self.name} ({self.config})" if self.config else self.name

    def _refusal(self, split: str, error: Exception) -> str:
        said = (str(error).splitlines() or [""])[0].rstrip(".")
        return (
            f"cannot get the {split} split of {self} from the hub: {type(error).__name__}: {said}. Is there a network, "
            "and room in the cache ($HF_HOME)? What was half fetched is fetched again. Without a network, give files "
            "with the same columns (options.train=train.jsonl, options.validation=...), or copy the cache of a machine "
            "that has one."
        )
