"""A report as LaTeX: one ``table`` with booktabs rules for all tasks, and one for each."""

from __future__ import annotations

from dataclasses import replace

from unipetl.reporting import tables
from unipetl.reporting.experiments import Found
from unipetl.reporting.sheets import Cell, Sheet

#: What LaTeX takes for a command, and the signs that its text fonts lack.
SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{char: f"\\{char}" for char in "&%$#_{}"},
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "±": r"$\pm$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "–": "--",
}
#: Columns of the page that no paper prints.
LEFT_OUT = ("No.", "Training, s", "Memory, MiB", "Notation")


def to_latex(found: Found) -> str:
    """Return the tables of a report as LaTeX to put into a paper; the package booktabs is needed."""
    sheets = [tables.overview(found)] if len(found.columns) > 1 else []
    sheets += [tables.detail(found, column, f"task{place}") for place, column in enumerate(found.columns)]
    sheets += found.sheets
    made = "\n\n".join(_sheet(_without(one)) for one in sheets)
    return (
        f"% {' '.join(found.title.split())}\n% needs \\usepackage{{booktabs}} and \\usepackage[T1]{{fontenc}}\n{made}\n"
    )


def escape(text: str) -> str:
    """Return text that LaTeX sets as it stands."""
    return "".join(SPECIAL.get(char, char) for char in " ".join(text.split()))


def _without(sheet: Sheet) -> Sheet:
    kept = [place for place, head in enumerate(sheet.heads) if head.text not in LEFT_OUT]
    groups = tuple(
        replace(group, rows=tuple(tuple(row[place] for place in kept) for row in group.rows)) for group in sheet.groups
    )
    return replace(sheet, heads=tuple(sheet.heads[place] for place in kept), groups=groups, name=0)


def _sheet(sheet: Sheet) -> str:
    width = len(sheet.heads)
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape(f'{sheet.title}. {sheet.caption}')}}}",
        r"\begin{tabular}{" + "".join("r" if head.number else "l" for head in sheet.heads) + "}",
        r"\toprule",
        _row([escape(head.text) for head in sheet.heads]),
    ]
    for group in sheet.groups:
        lines.append(r"\midrule")
        if group.title:
            lines.append(rf"\multicolumn{{{width}}}{{l}}{{\emph{{{escape(group.title)}}}}} \\")
        lines += [_row([_cell(cell) for cell in row]) for row in group.rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"])


def _row(cells: list[str]) -> str:
    row = " & ".join(cells)
    guard = "{}" if row.startswith(("[", "*")) else ""  # which the \\ or the rule before would take for its own
    return guard + row + r" \\"


def _cell(cell: Cell) -> str:
    return rf"\textbf{{{escape(cell.text)}}}" if cell.best else escape(cell.text)
