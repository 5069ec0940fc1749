"""The versions of transformers that unipetl works with: its attention interface is known there."""

from __future__ import annotations

import re
from functools import cache
from importlib import metadata

from unipetl.errors import PlanError

#: The first release that works, and the first that may not; as in pyproject.toml.
OLDEST, TOO_NEW = (5, 15), (6, 0)


@cache
def check_transformers() -> None:
    """Check the installed version, once.

    Raises:
        PlanError: it is outside the range.
    """
    found = metadata.version("transformers")
    numbers = tuple(int(part) for part in re.findall(r"\d+", found)[:2])
    if not OLDEST <= numbers < TOO_NEW:
        oldest, too_new = (".".join(map(str, one)) for one in (OLDEST, TOO_NEW))
        raise PlanError(
            f"transformers {found} is installed, and unipetl works with {oldest} and later ones before {too_new}: "
            f"pip install 'transformers>={oldest},<{too_new}'"
        )
