"""Tells whether a model is the one an attachment was trained on, without reading all of it.

Structure: names and shapes of the parameters that the attachment does not train. Weights: up to 64 values of each,
rounded to bfloat16, so that the same checkpoint loaded in float32 or bfloat16 has the same fingerprint.
"""

from __future__ import annotations

import hashlib
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from unipetl.attaching.state import Record, own_parameters, state_of

_SAMPLES = 64


def fingerprint(model: nn.Module, record: Record) -> dict[str, str]:
    """Return ``{"structure": hex, "weights": hex}`` of the base of an attachment.

    The base model's parameters count under their names inside it, so a classifier and a bare encoder around
    the same weights agree; an untrained task head counts too, since the function depends on it.
    """
    base = _base_values(model, record)
    editions = [(name, id(values), *_edition(values)) for name, values in base.items()]
    known = _KNOWN.get(model)
    if known is not None and known[0] == editions:  # a running model is asked often, and its base stays
        return dict(known[1])
    structure, weights = hashlib.sha256(), hashlib.sha256()
    for name, values in sorted(base.items()):
        structure.update(f"{name}:{tuple(values.shape)};".encode())
        weights.update(f"{name}:".encode())
        weights.update(_sample(values))
    found = {"structure": structure.hexdigest(), "weights": weights.hexdigest()}
    _KNOWN[model] = editions, found
    return dict(found)


#: The last fingerprint of a model, and the editions of the tensors it was taken of.
_KNOWN: WeakKeyDictionary[nn.Module, tuple[object, dict[str, str]]] = WeakKeyDictionary()


def _edition(values: Tensor) -> tuple[object, ...]:
    """Return what changes when a tensor's values do; never the same twice where that is not known."""
    if values.is_inference() or type(values) not in (Tensor, nn.Parameter):
        return (object(),)
    return values._version, values.data_ptr(), values.dtype


def _base_values(model: nn.Module, record: Record) -> dict[str, Tensor]:
    plan = record.plan
    trained = {name for name, _ in plan.trained}
    prefix = f"{plan.base}." if plan.base else ""
    originals = {
        name: values
        for other in state_of(model).records.values()
        if other.active and other is not record
        for name, values in other.parked.items()
    }
    base: dict[str, Tensor] = {}
    for name, parameter in own_parameters(model).items():
        if name in trained:
            continue
        if name.startswith(prefix):
            base[name.removeprefix(prefix)] = originals.get(name, parameter)
        elif name in plan.head:
            base[f"head:{name}"] = originals.get(name, parameter)
    return base


def _sample(values: Tensor) -> bytes:
    values = values.detach()
    if type(values) not in (Tensor, torch.nn.Parameter) and hasattr(values, "dequantize"):
        values = values.dequantize()  # a quantised tensor need not know how to be sliced
    flat = values.reshape(-1)
    step = max(flat.numel() // _SAMPLES, 1)
    chosen = flat[::step][:_SAMPLES].to("cpu", torch.float32).to(torch.bfloat16)
    return chosen.view(torch.int16).numpy().tobytes()
