"""The paper's experiments: their recipes from one table, and its claims tested on models that fit a small machine.

Names are imported when first used, so that this import is light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "judge": "unipetl.reproduction.verdicts",
    "small_study": "unipetl.reproduction.small",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605

if TYPE_CHECKING:
    from unipetl.reproduction.small import small_study as small_study
    from unipetl.reproduction.verdicts import judge as judge


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'unipetl.reproduction' has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
