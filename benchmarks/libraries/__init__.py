"""One file for each library: its name, its packages, and how it attaches each method to a model."""

from __future__ import annotations

import importlib
from typing import Any, Protocol

NAMES = ("unipetl", "peft", "adapterhub")
TITLES = {"unipetl": "unipetl", "peft": "PEFT", "adapterhub": "AdapterHub"}


class Library(Protocol):
    """What a file here has. A method that the library does not have is missing from ``METHODS``."""

    PACKAGES: tuple[str, ...]
    METHODS: dict[str, Any]

    @staticmethod
    def attach(model: Any, method: str) -> Any:
        """Attach to a frozen model; return what is called. Only what the method learns requires a gradient."""

    @staticmethod
    def save(attached: Any, folder: str) -> None: ...

    @staticmethod
    def load(model: Any, folder: str) -> Any: ...

    @staticmethod
    def attach_more(attached: Any, method: str, names: list[str]) -> None:
        """Attach more of them by name; the last one is active, or the first."""

    @staticmethod
    def switch(attached: Any, name: str) -> None: ...

    @staticmethod
    def routed(attached: Any, inputs: dict[str, Any], names: list[str]) -> None:
        """Compute row i of a batch with the attachment of the i-th name."""


def library(name: str) -> Library:
    """Return the library's module; needs its packages."""
    return importlib.import_module(f"benchmarks.libraries.{name}_methods")
