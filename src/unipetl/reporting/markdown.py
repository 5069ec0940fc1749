"""A report as Markdown: the tables, what failed, and the commands."""

from __future__ import annotations

from unipetl.markdown import escape
from unipetl.reporting import tables
from unipetl.reporting.experiments import Found
from unipetl.reporting.page import commands
from unipetl.reporting.sheets import Cell, Sheet


def to_markdown(found: Found) -> str:
    """Return the tables of a report as Markdown."""
    sheets = [tables.overview(found)] if len(found.columns) > 1 else []
    sheets += [tables.detail(found, column, f"task{place}") for place, column in enumerate(found.columns)]
    sheets += found.sheets
    sheets += [tables.failures(found)] if found.failures else []
    sheets += [tables.environments(found)]
    parts = [f"# {escape(found.title)}", *(_sheet(one) for one in sheets)]
    if found.missing:
        parts.append(f"Runs not made yet: {found.missing}.")
    lines = [line for one in commands(found) for line in ("    " + text for text in one.line.splitlines())]
    parts.append("## Commands\n\n" + "\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _sheet(sheet: Sheet) -> str:
    lines = [
        f"## {escape(sheet.title)}",
        "",
        escape(sheet.caption),
        "",
        "| " + " | ".join(escape(head.text) for head in sheet.heads) + " |",
        "|" + "|".join("---:" if head.number else "---" for head in sheet.heads) + "|",
    ]
    for group in sheet.groups:
        if group.title:
            lines.append("| " + " | ".join(["", f"*{escape(group.title)}*", *[""] * (len(sheet.heads) - 2)]) + " |")
        lines += ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in group.rows]
    return "\n".join(lines)


def _cell(cell: Cell) -> str:
    return f"**{escape(cell.text)}**" if cell.best else escape(cell.text)
