"""The library returns and raises; only the command line prints."""

from __future__ import annotations

from pathlib import Path

import pytest

from house_rules.sources import PACKAGE, at, calls, parsed, python_files


def prints(path: Path) -> list[str]:
    """Every call of `print` or `pprint` in a file."""
    return [
        f"{at(path, call)}: prints"
        for call in calls(parsed(path))
        if getattr(call.func, "id", None) in {"print", "pprint"}
    ]


def test_only_the_command_line_prints():
    library = [path for path in python_files(PACKAGE) if "cli" not in path.relative_to(PACKAGE).parts]
    assert [fault for path in library for fault in prints(path)] == []


@pytest.mark.parametrize("planted", ["print('x')", "def f():\n    if True:\n        print()"])
def test_planted_print_is_reported(tmp_path, planted):
    path = tmp_path / "planted.py"
    path.write_text(planted)
    assert len(prints(path)) == 1


def test_a_method_named_print_is_not_reported(tmp_path):
    path = tmp_path / "harmless.py"
    path.write_text("console.print('x')\n# print(1)")
    assert prints(path) == []
