"""A method whose forms promise to start at zero change computes the bare model before training, bit for bit."""

from __future__ import annotations

from typing import Any

from torch import nn

from unipetl.attaching import attach
from unipetl.composition import Gate
from unipetl.method import Method
from unipetl.notation import parse
from unipetl.testing.compare import Call, close, differ, outputs, same, scatter


def promises_zero(method: Method | str) -> bool:
    """Return whether every modification starts without effect. A gated one never does: it takes attention."""
    return all(one.form.starts_at_zero and not isinstance(one.composition, Gate) for one in parse(method).modifications)


def starts_as_the_bare_model(
    model: nn.Module, method: Method | str, call: Call, *, atol: float = 0.0, **attaching: Any
) -> None:
    """Check the promise where there is one, and that random values change the result.

    ``atol`` is for models whose own result depends on how a tensor lies in memory; 0 is bit for bit.

    Raises:
        CheckError: the law does not hold.
    """
    bare = outputs(model, call)
    attachment = attach(model, method, **attaching)
    if promises_zero(method):
        what = "a fresh attachment that promises zero change, against the bare model"
        found = outputs(model, call)
        if atol:
            close(found, bare, what, atol)
        else:
            same(found, bare, what)
    if attachment.plan.placements:
        scatter(attachment)
        differ(outputs(model, call), bare, "an attachment with random values, against the bare model")
