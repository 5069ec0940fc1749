"""Folding keeps the function, and unfolding gives back the very bits."""

from __future__ import annotations

from typing import Any

from torch import nn

from unipetl.attaching import attach, detach
from unipetl.errors import FoldError
from unipetl.folding import Folding, fold, unfold
from unipetl.method import Method
from unipetl.testing.compare import Call, close, outputs, require, same, scatter
from unipetl.testing.laws.removal import Snapshot


def folds_and_unfolds(
    model: nn.Module, method: Method | str, call: Call, *, atol: float = 1e-9, **attaching: Any
) -> Folding | None:
    """Attach, fold what can be folded, compare the function, unfold, and compare everything.

    Args:
        model: a model in evaluation mode.
        method: any method; what does not fold stays attached.
        call: the arguments of one call.
        atol: how far the function may be off by rounding.
        attaching: further arguments of attach.

    Returns:
        What folded, or None if nothing does.

    Raises:
        CheckError: the law does not hold.
    """
    outputs(model, call)  # in which a model may note things of its own
    bare = Snapshot.of(model)
    attachment = scatter(attach(model, method, **attaching))
    attached, wanted = Snapshot.of(model), outputs(model, call)
    try:
        folded = fold(model, partial=True, architecture=attaching.get("architecture"))
    except FoldError:
        attached.require_unchanged(model, "after a fold that was refused")
        same(outputs(model, call), wanted, "the result after a fold that was refused")
        return None
    close(outputs(model, call), wanted, "the result after folding", atol=atol)
    if folded.complete:
        left = [name for name, _ in model.named_modules() if name.endswith("unipetl")]
        require(not left, f"after a complete fold, {left[:1]} is left in the model.")
    unfold(model)
    attached.require_unchanged(model, "after unfolding")
    same(outputs(model, call), wanted, "the result after unfolding")
    attachment.detach()
    bare.require_unchanged(model, "after unfolding and detaching")
    return folded


def refuses_cleanly(model: nn.Module, method: Method | str, call: Call, **folding: Any) -> str:
    """Attach, expect a fold to be refused, and compare everything; return the message.

    Raises:
        CheckError: it was not refused, or something is not as it was.
    """
    scatter(attach(model, method))
    attached, wanted = Snapshot.of(model), outputs(model, call)
    message = ""
    try:
        fold(model, **folding)
    except FoldError as error:
        message = str(error)
    require(bool(message), "the fold was not refused.")
    attached.require_unchanged(model, "after a fold that was refused")
    same(outputs(model, call), wanted, "the result after a fold that was refused")
    detach(model)
    return message
