"""JSON is read by one function: json.loads has a fault for texts that are nested too deep that is no ValueError."""

from __future__ import annotations

import pytest

from house_rules.sources import PACKAGE, at, calls, parsed, python_files
from house_rules.test_nothing_runs_code import dotted, imported_names
from unipetl.files import from_json


def readers(path):
    tree = parsed(path)
    names = imported_names(tree)
    return [at(path, call) for call in calls(tree) if dotted(call.func, names) in ("json.loads", "json.load")]


def test_only_one_function_reads_json():
    found = [place for path in python_files(PACKAGE) for place in readers(path)]
    assert [place.partition(":")[0] for place in found] == ["src/unipetl/files.py"]


def test_a_reader_is_seen_under_another_name(tmp_path):
    (tmp_path / "a.py").write_text("from json import loads as read\nread('1')\n")
    assert len(readers(tmp_path / "a.py")) == 1


@pytest.mark.parametrize("text", ["[" * 100_000, b"{" * 10, "nothing", '{"a": ' * 50_000])
def test_whatever_is_no_json_is_one_kind_of_error(text):
    with pytest.raises(ValueError):  # noqa: PT011 - the kind is what matters
        from_json(text)
