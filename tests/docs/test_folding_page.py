"""docs/folding.md says exactly what the code does."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs.folding_table import reasons, table
from unipetl.folding import targets

PAGE = Path(__file__).parents[2] / "docs" / "folding.md"


def test_the_table_is_what_folds():
    assert table() in PAGE.read_text()


def test_the_reasons_are_those_given():
    assert reasons() in PAGE.read_text()


@pytest.mark.parametrize("name", ["_as_units", "_affine_only"])
def test_a_planted_refusal_changes_the_table(monkeypatch, name):
    monkeypatch.setattr(targets, name, lambda *_: "planted")
    assert table() not in PAGE.read_text()
