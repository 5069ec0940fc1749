"""Packages that only some metrics need: imported late, with the command that installs them where they are missing."""

from __future__ import annotations

import importlib
from typing import Any

from unipetl.errors import MissingPackageError

#: What installs every package that a metric may need.
INSTALL = 'pip install "unipetl[paper]"'


def need(module: str, package: str, purpose: str) -> Any:
    """Import ``module`` and return it.

    Args:
        module: its name, such as ``rouge_score.rouge_scorer``.
        package: the name it is installed by.
        purpose: what it is needed for, to be read after "needed for".

    Raises:
        MissingPackageError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingPackageError(
            f"{package} is needed for {purpose} and is not here ({error}). Install it: {INSTALL}"
        ) from error
