"""The laws that one method is held to on one model, in order."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from unipetl.errors import PetlError, first_line
from unipetl.testing import laws
from unipetl.testing.apart import is_no_room
from unipetl.testing.calls import Calls
from unipetl.testing.models import copied


def broken_law(
    model: nn.Module, text: str, calls: Calls, options: dict[str, Any], *, atol: float = 1e-5, compiled: bool = False
) -> str | None:
    """Check every law on copies of ``model``, and return what broke the first that does not hold, or None.

    Args:
        model: a small model in float64 and evaluation mode.
        text: a method that ``plan`` takes.
        calls: the calls to make.
        options: of ``attach``: an architecture.
        atol: how far a padded row, or scores with a cache, may differ.
        compiled: whether to compile the model, too (seconds for each method).
    """

    def fresh() -> nn.Module:
        return copied(model)

    def save() -> None:
        with tempfile.TemporaryDirectory() as folder:
            laws.survives_saving(fresh(), fresh(), text, plain, Path(folder), **options)

    def fold() -> None:
        laws.folds_and_unfolds(fresh(), text, plain, atol=1e-8 if atol < 1e-6 else 1e-4, **options)

    plain, padded, start = calls.plain, calls.padded, calls.start
    checks: dict[str, Callable[[], None]] = {
        "starts as the bare model": lambda: laws.starts_as_the_bare_model(
            fresh(), text, plain, atol=0.0 if atol < 1e-6 else 1e-12, **options
        ),
        "trains its own and nothing else": lambda: laws.trains_its_own_and_nothing_else(
            fresh(), text, plain, unused=calls.unused, **options
        ),
        "leaves the base alone": lambda: laws.leaves_the_base_alone(
            fresh(), text, plain, unused=calls.unused, **options
        ),
        "detaches exactly": lambda: laws.detaches_exactly(fresh(), text, plain, **options),
        "survives saving": save,
        "folds and unfolds": fold,
        "computes in bfloat16": lambda: laws.computes_in_bfloat16(fresh(), text, plain, **options),
        "trains through checkpoints": lambda: laws.trains_through_checkpoints(fresh(), text, plain, **options),
    }
    if padded is not None:
        checks["ignores padding"] = lambda: laws.ignores_padding(fresh(), text, padded, atol=atol, **options)
    if start is not None:
        checks["generates the same without a cache"] = lambda: laws.generates_the_same_without_cache(
            fresh(), text, start, atol=10 * atol, **options
        )
    if compiled:
        checks["compiles to one graph"] = lambda: laws.compiles_to_one_graph(fresh(), text, plain, **options)
    for law, check in checks.items():
        try:
            check()
        except TimeoutError:
            raise
        except PetlError as fault:
            return f"{law}: {first_line(fault)}"
        except Exception as fault:  # a wrong place can make a model raise anything
            if is_no_room(fault):
                raise
            return f"{law}: {type(fault).__name__}: {first_line(fault)}"
    return None
