"""Proof that at every place of a model the first axis is the batch, row by row.

Models of the tables are known to be so. Of any other, nothing is taken for granted: some keep tokens first, pack rows,
or project what belongs to no row with the same module. Two small calls that differ in the second of two rows alone show
it: what a place sees must be equal in its first half and different in its second.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from unipetl.architectures import ARCHITECTURES
from unipetl.attaching.state import Record
from unipetl.errors import ArchitectureError, AttachError
from unipetl.forms import Features, Heads, Tokens
from unipetl.inference.inputs import example_inputs
from unipetl.inference.tracing import Call, trace
from unipetl.planning import Placement

Ends = dict[tuple[str, str], list[bool]]
#: For every end of a module that was watched, and every call of it: whether rows stand first there.
_SEEN: WeakKeyDictionary[nn.Module, Ends] = WeakKeyDictionary()
#: Stacks in which a row of the text may have any number of rows.
_SEEING = ("vision", "image", "video", "audio")


def require_rows(model: nn.Module, used: Iterable[Record], own: Iterable[str]) -> None:
    """Raise unless the rows of a batch can be told apart where ``used`` change the model.

    Args:
        model: a model without hooks of ours.
        used: the attachments of the rows.
        own: the modules whose parameters rows have other values of.

    Raises:
        AttachError: they cannot; the message names the place.
    """
    others = [record for record in used if record.plan.architecture not in ARCHITECTURES]
    for record in used:
        for one in record.plan.placements:
            _refuse_unknown(model, one)
    for path in own:
        parent = model.get_submodule(path.rpartition(".")[0])
        if isinstance(parent, nn.MultiheadAttention) or isinstance(model.get_submodule(path), nn.MultiheadAttention):
            raise AttachError(_no_rows(path, "torch's fused attention reads its parameters, and they are trained"))
    if not others:
        return
    if model not in _SEEN:
        _SEEN[model] = _watch(model)
    seen = _SEEN[model]
    for record in others:
        for one in record.plan.placements:
            ports, calls = [one.site.value, one.site.join, one.site.normed, one.site.residual], None
            if one.modification.form.needs is not Features:  # inside an attention, whose first query is the tokens'
                ports, calls = [one.site.normed], 1
            for port in ports:
                if port is not None and not all(seen.get((port.module, port.side), [False])[:calls]):
                    raise AttachError(_no_rows(one.site.name, f"{port.module!r} sees no rows of the batch there"))
    for path in own:  # what a call does not reach (a head beside it) is no evidence against; no call at all is
        if not seen or not all(seen.get((path, "output"), ())):
            raise AttachError(_no_rows(path, "it gives no rows of the batch, and its parameters are trained"))


def _refuse_unknown(model: nn.Module, one: Placement) -> None:
    if one.modification.form.needs not in (Features, Heads, Tokens):
        raise AttachError(_no_rows(one.site.name, "its changes belong to no row of the batch"))
    if one.site.inside == "experts":
        raise AttachError(_no_rows(one.site.name, "an expert sees tokens from anywhere in the batch"))
    able = getattr(model, "can_generate", None)
    if one.site.stack.stack in _SEEING and callable(able) and able():
        raise AttachError(
            _no_rows(
                one.site.name, f"a row of the text may have any number of rows of the {one.site.stack.stack} stack"
            )
        )


def _no_rows(where: str, why: str) -> str:
    return (
        f"routed(): at {where!r} it is not known which row a vector belongs to: {why}. What works: attachments at "
        "other places, or one activate() and one call for each attachment."
    )


def _watch(model: nn.Module) -> Ends:
    for inputs in _inputs(model):
        other = {name: _changed(value) for name, value in inputs.items()}
        try:
            first, second = trace(model, inputs), trace(model, other)
        except Exception:  # noqa: BLE001 - guessed inputs may fail in any way
            continue
        found: Ends = {}
        if [call.path for call in first.calls] != [call.path for call in second.calls]:
            continue
        for a, b in zip(first.calls, second.calls, strict=True):
            for side in ("input", "output"):
                found.setdefault((a.path, side), []).append(_by_row(_end(a, side), _end(b, side)))
        return found
    return {}


def _inputs(model: nn.Module) -> list[dict[str, Any]]:
    try:
        return example_inputs(model, rows=2)
    except ArchitectureError:
        return []


def _changed(value: Any) -> Any:
    """Return an argument with another second row, of values that it has already."""
    if not isinstance(value, Tensor) or value.dim() < 2 or value.shape[0] != 2:
        return value
    rolled = value[1].flatten().roll(1).view(value[1].shape)
    return torch.stack([value[0], rolled])


def _end(call: Call, side: str) -> Tensor | None:
    return call.read if side == "input" else call.gave


def _by_row(first: Tensor | None, second: Tensor | None) -> bool:
    if first is None or second is None or first.shape != second.shape or first.dim() < 2 or first.shape[0] % 2:
        return False
    half = first.shape[0] // 2
    with torch.no_grad():
        same = torch.allclose(first[:half].double(), second[:half].double(), rtol=1e-4, atol=1e-5)
        return same and not torch.equal(first[half:], second[half:])
