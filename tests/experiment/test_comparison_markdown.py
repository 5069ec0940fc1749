"""``comparison.md``: what users and libraries wrote is text in it, never markup."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from unipetl.experiment.table import Comparison, Failure, Row, Table
from unipetl.markdown import code_cell, escape

WILD = "broken | <b>x</b>\n# `y` *z* [a](b) & _c_"


def comparison(text):
    row = Row(text, "lora(rank=2) | `x`", 10, 0.1, 8, {0: 50.0}, 50.0, None, 1.0, 2**20)
    table = Table(text, text, True, 100, (row, row))
    return Comparison(Path(), text, (table,), (Failure(text, text, 0, "PlanError", text, "runs"),), 0)


def bars(line):
    """The bars of a line that end a cell: those with no backslash before them."""
    return len(re.findall(r"(?<!\\)\|", line))


def test_every_row_has_as_many_cells_as_the_head():
    lines = [line for line in comparison(WILD).to_markdown().splitlines() if line.startswith("|")]
    assert len(lines) == 4
    assert {bars(line) for line in lines} == {9}


def test_no_text_is_markup():
    text = comparison(WILD).to_markdown()
    assert not re.search(r"(?<!\\)[<>&\[\]*_]", text)
    heads = [line for line in text.splitlines() if line.startswith("# ")]
    assert heads == ["# " + escape(WILD)]
    assert sum(line.startswith("- ") for line in text.splitlines()) == 1


def test_rendered_it_is_the_text_again():
    markdown = pytest.importorskip("markdown_it")  # which rich brings
    html = markdown.MarkdownIt("commonmark").enable("table").render(comparison(WILD).to_markdown())
    assert html.count("<td") == 16
    assert "<b>" not in html
    assert "broken | &lt;b&gt;x&lt;/b&gt; # `y` *z* [a](b) &amp; _c_</td>" in html
    assert "<code>lora(rank=2) | `x`</code>" in html


@pytest.mark.parametrize(
    ("text", "code"), [("lora(rank=2)", "`lora(rank=2)`"), ("a|b", r"`a\|b`"), ("a``b", "``` a``b ```")]
)
def test_code_in_a_cell(text, code):
    assert code_cell(text) == code
