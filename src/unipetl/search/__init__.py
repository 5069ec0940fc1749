"""A search of the design space under a parameter budget, with Optuna: axes are choices, sizes follow from the budget.

Names are imported when first used, so that this import is light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unipetl import lazily

_HOMES = {
    "Search": "unipetl.search.definition",
    "SearchProgress": "unipetl.search.searching",
    "SearchResult": "unipetl.search.result",
    "Space": "unipetl.search.space",
    "load_search": "unipetl.search.definition",
    "search": "unipetl.search.searching",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605

if TYPE_CHECKING:
    from unipetl.search.definition import Search as Search
    from unipetl.search.definition import load_search as load_search
    from unipetl.search.result import SearchResult as SearchResult
    from unipetl.search.searching import SearchProgress as SearchProgress
    from unipetl.search.searching import search as search
    from unipetl.search.space import Space as Space


__getattr__ = lazily.names(__name__, _HOMES)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
