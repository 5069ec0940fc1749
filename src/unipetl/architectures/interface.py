"""Tells whether an attention module calls transformers' attention interface."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache

from torch import nn


def uses_interface(module: nn.Module) -> bool:
    """Return whether the code of a module's class asks the interface for its attention, whatever is in force."""
    return _asks(type(module).__dict__.get("forward", module.forward))


@lru_cache(maxsize=1024)  # reading a source takes milliseconds, and a model has the same class in every layer
def _asks(forward: Callable[..., object]) -> bool:
    try:
        return "get_interface" in inspect.getsource(forward)
    except (OSError, TypeError):  # no source at hand: trust the table
        return True
