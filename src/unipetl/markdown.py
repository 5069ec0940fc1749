"""Text inside Markdown that stays text: names and messages of users and libraries are no markup."""

from __future__ import annotations

import re

#: What Markdown or the HTML inside it would take for markup.
SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~&!$])")


def escape(text: str) -> str:
    """Return text in which nothing is markup and no line ends."""
    return SPECIAL.sub(r"\\\1", " ".join(text.split()))


def code_cell(text: str) -> str:
    """Return text as code for a cell of a table, where a bar is escaped in code as well."""
    line = " ".join(text.split()).replace("|", r"\|")
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    gap = " " if "`" in line else ""
    return f"{fence}{gap}{line}{gap}{fence}"
