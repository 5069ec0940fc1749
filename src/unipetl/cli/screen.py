"""What verbs show: tables for people, JSON for programs, messages on standard error.

A terminal gets tables of its width and colour; a pipe gets whole lines and plain text. ``NO_COLOR`` is respected.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rich.console import Console

#: Wide enough for every line that is not shown on a terminal: nothing is cut or wrapped in a pipe or a file.
PIPE_WIDTH = 2000
#: Terminals of fewer columns are narrow.
WIDE = 110


def console(*, stderr: bool = False) -> Console:
    """Return a console on standard output, or on standard error."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="replace")  # a terminal that lacks σ shows ?, and no traceback
    width = None if stream.isatty() else PIPE_WIDTH
    return Console(stderr=stderr, width=width, highlight=False, markup=False, emoji=False)


def show(text: str = "", *, style: str | None = None) -> None:
    """Write a paragraph on standard output."""
    console().print(_printable(text), style=style)


def say(message: str, *, style: str | None = None) -> None:
    """Write a message on standard error."""
    console(stderr=True).print(_printable(message), style=style)


def show_json(data: Any) -> None:
    """Write ``data`` as JSON, and nothing else, on standard output; numbers that JSON lacks become null."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    text = json.dumps(_finite(data), indent=2, ensure_ascii=not _writes("σ"), allow_nan=False, default=str)
    print(text)


def narrow() -> bool:
    """Return whether the screen is a terminal too narrow for the widest tables, which then leave something out."""
    return sys.stdout.isatty() and console().width < WIDE


def show_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: Sequence[str] = (), whole: Sequence[str] = ()
) -> None:
    """Write a table; columns named in ``numbers`` are set flush right, those in ``whole`` are never broken.

    A cell is text, or a whole number, which is shown with thousands separated. A row of no cells is a rule.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    padding = (0, 0, 0, 0) if narrow() else (0, 1, 0, 0)
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, show_edge=False, padding=padding)
    for column in columns:
        justify: Literal["left", "right"] = "right" if column in numbers else "left"
        table.add_column(column, justify=justify, overflow="fold", no_wrap=column in whole)
    for row in rows:
        if not row:
            table.add_section()
            continue
        table.add_row(*(cell if isinstance(cell, Text) else Text(_cell(cell)) for cell in row))
    screen = console()
    with screen.capture() as drawn:
        screen.print(table)
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in drawn.get().splitlines()))


def counted(number: int, what: str) -> str:
    """Return ``1 run`` or ``2 runs``."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def percent(share: float) -> str:
    """Return a share of one as a percentage with three decimals."""
    return f"{100 * share:.3f} %"


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else _printable(str(value))


def _printable(text: str) -> str:
    """Return ``text`` without what could steer a terminal: names in files are others' text."""
    return "".join(char if char.isprintable() or char in "\n\t" else "\N{REPLACEMENT CHARACTER}" for char in text)


def _writes(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (UnicodeError, LookupError):
        return False
    return True


def _finite(data: Any) -> Any:
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, dict):
        return {str(key): _finite(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_finite(value) for value in data]
    return data
