"""What is measured, one file for each kind. A kind is built in a worker and then asked for round after round."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Protocol

from benchmarks.clock import Seconds
from benchmarks.libraries import Library
from benchmarks.shapes import Shape

#: Kind -> the module here and the class in it.
HOMES = {
    "eval": ("speed", "Eval"),
    "train": ("speed", "Train"),
    "generate": ("speed", "Generate"),
    "memory": ("memory", "Memory"),
    "attach": ("attaching", "Attach"),
    "storage": ("storage", "Storage"),
    "switch": ("switching", "Switch"),
    "route": ("routes", "Route"),
    "compile-eval": ("compiling", "CompileEval"),
    "compile-train": ("compiling", "CompileTrain"),
}


class Kind(Protocol):
    """One kind of measurement on one shape with one library.

    Attributes:
        reference: what the times of a round are divided by.
        problems: what could not be measured -> why.
        facts: what needs no rounds, by method.
    """

    reference: str
    problems: dict[str, str]
    facts: dict[str, dict[str, Any]]

    def round(self, number: int) -> list[tuple[str, Seconds]]:
        """Time everything once, in the round's order, the reference more often."""


def start(kind: str, of: Shape, library: Library, methods: Sequence[str], device: str) -> Kind:
    """Build a kind in this process."""
    module, name = HOMES[kind]
    return getattr(importlib.import_module(f"benchmarks.kinds.{module}"), name)(of, library, methods, device)
