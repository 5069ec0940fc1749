"""No module named for what it is not: `utils` and its kin become drawers where ideas get lost."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from house_rules.sources import PACKAGE, python_files

DRAWERS = {"util", "utils", "helper", "helpers", "misc", "common", "tools", "stuff"}


def drawers(paths: Iterable[Path]) -> list[str]:
    """The paths with a drawer's name in any of their parts, leading underscores aside."""
    return [str(path) for path in paths if DRAWERS & {part.lstrip("_") for part in path.with_suffix("").parts}]


def test_no_drawer_in_the_package():
    assert drawers(path.relative_to(PACKAGE) for path in python_files(PACKAGE)) == []


@pytest.mark.parametrize("planted", ["utils.py", "attach/_utils.py", "helpers/tensors.py"])
def test_planted_drawer_is_reported(planted):
    assert drawers([Path("forms/prompt.py"), Path(planted)]) == [str(Path(planted))]
