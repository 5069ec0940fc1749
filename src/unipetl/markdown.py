"""Text inside Markdown that stays text: names and messages of users and libraries are no markup."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

#: What Markdown or the HTML inside it would take for markup.
SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~&!$])")


def escape(text: str) -> str:
    """Return text in which nothing is markup and no line ends."""
    return SPECIAL.sub(r"\\\1", " ".join(text.split()))


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table whose cells are text: nothing in them is markup."""

    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(map(escape, cells))} |"

    return "\n".join([line(heads), "|" + "---|" * len(heads), *map(line, rows)])


def code(text: str) -> str:
    """Return text as code in a line."""
    line = " ".join(text.split())
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    gap = " " if "`" in line else ""
    return f"{fence}{gap}{line}{gap}{fence}"


def code_cell(text: str) -> str:
    """Return text as code for a cell of a table, where a bar is escaped in code as well."""
    return code(text).replace("|", r"\|")
