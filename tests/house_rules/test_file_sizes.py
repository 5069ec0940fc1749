"""A file holds one idea: none is longer than 500 lines, and at least four in five of the sources stay within 250."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from house_rules.sources import PACKAGE, TESTS, python_files

HARD_LIMIT, USUAL_LIMIT, USUAL_SHARE = 500, 250, 0.8


def too_long(lines: Mapping[str, int], usual_share: float) -> list[str]:
    """What breaks the rule in a table of file -> number of lines."""
    faults = [f"{name}: {count} lines > {HARD_LIMIT}" for name, count in lines.items() if count > HARD_LIMIT]
    usual = [name for name, count in lines.items() if count <= USUAL_LIMIT]
    if len(usual) < usual_share * len(lines):
        longer = sorted(set(lines) - set(usual))
        faults.append(f"only {len(usual)} of {len(lines)} files within {USUAL_LIMIT} lines; longer: {longer}")
    return faults


def line_counts(folder: Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder)): len(path.read_text(encoding="utf-8").splitlines())
        for path in python_files(folder)
    }


def test_sources_are_short():
    assert too_long(line_counts(PACKAGE), USUAL_SHARE) == []


def test_tests_are_within_the_limit():
    assert too_long(line_counts(TESTS), 0.0) == []


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        ({"a.py": 501}, "a.py: 501 lines"),
        ({"a.py": 250, "b.py": 251, "c.py": 10, "d.py": 10}, "only 3 of 4"),
    ],
)
def test_planted_long_files_are_reported(lines, fault):
    assert any(fault in found for found in too_long(lines, USUAL_SHARE))


def test_the_limits_themselves_are_allowed():
    assert too_long({"a.py": 500, "b.py": 250, "c.py": 250, "d.py": 1, "e.py": 1}, USUAL_SHARE) == []
