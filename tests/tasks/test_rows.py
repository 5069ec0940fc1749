"""Columns of texts: what is no text is named with its place."""

from __future__ import annotations

import json

import pytest

from unipetl.errors import TaskError
from unipetl.tasks.rows import Rows


def rows(*values):
    return Rows("train.jsonl", {"review": list(values)}, lambda number: f"line {number + 1}")


def test_texts_of_every_script_are_taken_as_they_are():
    values = ["plain", "", "naïve", "日本", json.loads('"\\ud83d\\ude00"'), "\0", "\uffff"]
    assert rows(*values).texts("review") == values


@pytest.mark.parametrize("escape", [r"\ud800", r"\udfff", r"\ude00\ud83d"])
def test_half_of_a_surrogate_pair_is_refused_with_its_line(escape):
    half = json.loads(f'"a {escape} b"')
    with pytest.raises(TaskError, match=r"train\.jsonl, line 2: character 3 of 'review' is '\\ud.*half of a surrogate"):
        rows("fine", half).texts("review")


@pytest.mark.parametrize(("value", "found"), [(None, "nothing"), (5, "int 5")])
def test_what_is_no_text_is_refused_with_its_line(value, found):
    with pytest.raises(TaskError, match=f"line 1: 'review' should be text; found {found}"):
        rows(value).texts("review")
