"""Text inside Markdown stays text: cells stay cells, code stays code, whatever people call things."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unipetl.experiment import ComparePlan
from unipetl.experiment.table import Comparison, Failure, Row, Table
from unipetl.hub import card
from unipetl.markdown import code, code_cell, escape, table
from unipetl.reproduction.claims_page import Findings, _scores

TEXT = st.text(st.sampled_from("ab|`<>*_[]\\\n &$"), min_size=1)


def cells(line):
    """What a renderer takes for the cells of a row: bars part them that no backslash stands before."""
    return re.split(r"(?<!\\)(?:\\\\)*\|", line)[1:-1]


@given(TEXT, TEXT)
def test_rows_keep_their_cells(first, second):
    lines = table((first, "b"), [(second, "x")]).split("\n")
    assert [len(cells(line)) for line in lines] == [2, 2, 2]


@given(TEXT)
def test_code_is_one_span(text):
    line = " ".join(text.split())
    made = code(text)
    fence = re.match("`+", made)[0]
    assert made.endswith(fence)
    assert "\n" not in made
    assert fence not in re.findall("`+", line)


def test_names_with_signs_of_markdown_break_no_table_of_the_claims(tmp_path):
    row = Row("a|b `c` <d>", "lora(rank=2)|`x`", 10, 0.1, 10, {0: 1.0}, 1.0, None, 1.0, 1)
    named = Table("t|u", "m|n", True, 100, (row,))
    failures = (Failure("t|u", "a", 0, "E", "first\n| second <b>", "p"),)

    plan = ComparePlan(name="x | y", tasks=["sst2"], methods=["lora"])
    found = Findings(tmp_path, Comparison(tmp_path, None, (named,), failures, 1), plan, (), {})
    lines = _scores(found, named).split("\n")
    assert lines[0] == r"## t\|u: m\|n"
    assert {len(cells(line)) for line in lines[2:]} == {8}
    assert r"a\|b \`c\` \<d\>" in lines[4]


@pytest.mark.parametrize("text", ["a|b", "`x`", "<script>", "a\nb"])
def test_a_card_escapes_what_it_is_told(text):
    facts = card.Facts(task=text, metric=text, scores=[card.Score(0, {text: 1.0})])
    made = card._results(facts)
    rows = [line for line in made.split("\n") if line.startswith("|")]
    assert [len(cells(line)) for line in rows] == [2, 2, 2]
    assert escape(text) in rows[0]
    assert made.startswith(code(text))
    assert "|" not in code_cell(text).replace(r"\|", "")
