"""Every Python snippet of the README and the documentation runs, page by page, as a reader would run it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hub.fake_hub import FakeHub, taken_for_real

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def run(page: Path, text: str) -> None:
    """Run every snippet of a page, in order, in one namespace, with line numbers of the page."""
    names: dict[str, object] = {}
    for block in BLOCK.finditer(text):
        line = text.count("\n", 0, block.start()) + 1
        exec(compile("\n" * line + block.group(1), str(page), "exec"), names)  # noqa: S102 - our own pages


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_snippets_of_a_page_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with FakeHub() as hub:
        taken_for_real(hub, monkeypatch, tmp_path / "cache")
        monkeypatch.setenv("HF_TOKEN", "hf_right")
        run(page, page.read_text())


def test_a_broken_snippet_is_noticed():
    with pytest.raises(NameError, match="undefined_here"):
        run(Path("page.md"), "text\n```python\nundefined_here\n```\n")


def test_there_are_snippets_to_run():
    assert sum(len(BLOCK.findall(page.read_text())) for page in PAGES) > 8


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
