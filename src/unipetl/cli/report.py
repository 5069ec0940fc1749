"""``unipetl report``: a comparison or some runs as one page, as Markdown or as LaTeX."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from unipetl.cli import screen
from unipetl.cli.options import Json, examples
from unipetl.cli.results import counted_runs

EXAMPLES = examples(
    ("one self-contained page of a comparison, finished or not", "unipetl report runs/demo"),
    ("several runs side by side", "unipetl report runs/lora runs/mam -o both.html"),
    ("tables for a paper", "unipetl report runs/demo --to latex -o results.tex"),
)
Form = Literal["html", "md", "latex"]
ENDINGS: dict[Form, str] = {"html": ".html", "md": ".md", "latex": ".tex"}


def command(
    folders: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="Comparisons, experiments of several seeds, or single runs.")
    ],
    to: Annotated[Form, typer.Option("--to", help="What to write.")] = "html",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where; else report.html, .md or .tex in DIR.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show results: tables, figures, learning curves, what is trained where, failures, environment and commands.

    The page is one file that loads nothing from anywhere. Everything is read from the directories of the runs, which
    stay as they are; runs that are missing or failed are counted and named.
    """
    from unipetl import reporting
    from unipetl.files import write_text

    if output is None and len(folders) > 1:
        raise typer.BadParameter("several directories need a file to write to: -o FILE.", param_hint="--output")
    path = output or folders[0] / f"report{ENDINGS[to]}"
    if path.is_dir():
        raise typer.BadParameter(f"{str(path)!r} is a directory; name a file.", param_hint="--output")
    found = reporting.gather(folders)
    makers = {"html": reporting.to_html, "md": reporting.to_markdown, "latex": reporting.to_latex}
    write_text(path, makers[to](found))
    if as_json:
        counts = {"runs": len(found.runs()), "failures": len(found.failures), "missing": found.missing}
        screen.show_json({"path": str(path), "title": found.title, **counts})
    else:
        screen.show(f"{path}: {counted_runs(len(found.runs()), len(found.failures), found.missing)} of {found.title}")
