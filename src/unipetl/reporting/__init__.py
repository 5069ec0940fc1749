"""Results for people: one self-contained page, Markdown and LaTeX, from the directories of runs and from nowhere else.

Names are imported when first used, so that this import is light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unipetl import lazily

_HOMES = {
    "Found": "unipetl.reporting.experiments",
    "gather": "unipetl.reporting.reading",
    "to_html": "unipetl.reporting.page",
    "to_latex": "unipetl.reporting.latex",
    "to_markdown": "unipetl.reporting.markdown",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605

if TYPE_CHECKING:
    from unipetl.reporting.experiments import Found as Found
    from unipetl.reporting.latex import to_latex as to_latex
    from unipetl.reporting.markdown import to_markdown as to_markdown
    from unipetl.reporting.page import to_html as to_html
    from unipetl.reporting.reading import gather as gather


__getattr__ = lazily.names(__name__, _HOMES)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
