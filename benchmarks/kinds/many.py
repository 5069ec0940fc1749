"""What measurements of many attachments on one model have in common."""

from __future__ import annotations

from typing import Any

from benchmarks.copies import share
from benchmarks.libraries import Library
from benchmarks.references import BARE
from benchmarks.shapes import Shape, batch, build


class Many:
    """A base, a batch for forward passes, and the names of ``count`` attachments."""

    reference = BARE

    def __init__(self, of: Shape, library: Library, device: str, count: int) -> None:
        self.library, self.device = library, device
        self.base = build(of, device)
        self.inputs = batch(of, device)
        del self.inputs["labels"]
        self.names = [f"n{number}" for number in range(count)]
        self.models: dict[str, Any] = {}
        self.problems: dict[str, str] = {}
        self.facts: dict[str, dict[str, Any]] = {}

    def copy(self) -> Any:
        """Return a model of its own that shares the base's values."""
        return share(self.base)
