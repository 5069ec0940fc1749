"""Builds the trainable modules of a plan and hangs them into the model, with initial values by name."""

from __future__ import annotations

import hashlib
import itertools

import torch
from torch import Tensor, nn

from unipetl.attaching.ports import Change
from unipetl.attaching.state import CHILD, Holder, Record
from unipetl.errors import AttachError
from unipetl.forms import Delta, build_at
from unipetl.planning import Plan
from unipetl.planning.own import own_modules


def generator_for(seed: int, name: str) -> torch.Generator:
    """Return a generator that depends on ``seed`` and ``name`` alone, never on an order."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") & (2**63 - 1))


def build(model: nn.Module, plan: Plan, record: Record) -> None:
    """Make the modules of ``plan``, on the device and in the dtype of the places they change.

    Parameters are float32 beside a half-precision base (they are cast to the activations' dtype in use),
    and of the base's dtype otherwise.
    """
    for group in plan.groups:
        shared = group.form.build_shared(group.shapes)
        assert shared is not None
        member = next(one for one in plan.placements if one.group == group.key)
        _settle(shared, model.get_submodule(member.site.owner), record.seed, group.key)
        record.shared[group.key] = shared
    for one in plan.placements:
        shared = record.shared.get(one.group) if one.group else None
        change = Change(one.modification, build_at(one.modification.form, one.shape, shared, one.index))
        _settle(change, model.get_submodule(one.site.owner), record.seed, one.key)
        record.changes[one.key] = change


def _settle(module: Delta | Change, neighbour: nn.Module, seed: int, name: str) -> None:
    device, dtype = torch.device("cpu"), torch.float32
    tensor = _first_tensor(neighbour)
    if tensor is not None:
        device = tensor.device
        dtype = torch.float64 if tensor.dtype == torch.float64 else dtype
    module.to(dtype=dtype)
    if device.type == "meta":
        module.to(device)
        return
    module.reset(generator_for(seed, name))
    module.to(device)


def _first_tensor(module: nn.Module) -> Tensor | None:
    """Return the first parameter of the model's own in a module, or else the first buffer."""
    parameters = (one for _, part in own_modules(module) for one in part._parameters.values())
    buffers = (one for _, part in own_modules(module) for one in part._buffers.values())
    return next((one for one in itertools.chain(parameters, buffers) if one is not None), None)


def hang(model: nn.Module, plan: Plan, record: Record) -> None:
    """Make the modules children of the modules they change; shared ones are children of the model itself.

    They take their parents' mode: dropout in a change is off in a model that evaluates.
    """
    for key, shared in record.shared.items():
        _holder(model, record).add_module(_child_name("shared", key), shared.train(model.training))
    for one in plan.placements:
        owner = model.get_submodule(one.site.owner)
        change = record.changes[one.key].train(owner.training)
        _holder(owner, record).add_module(_child_name(one.site.representation, one.label), change)


def unhang(model: nn.Module, record: Record) -> None:
    """Remove every child module of an attachment, and the holders it leaves empty."""
    paths = dict.fromkeys(one.site.owner for one in record.plan.placements)
    for module in (model, *(model.get_submodule(path) for path in paths)):
        holders = module._modules.get(CHILD)
        if isinstance(holders, Holder):
            holders._modules.pop(record.key, None)
            if not holders._modules:
                del module._modules[CHILD]


def _holder(owner: nn.Module, record: Record) -> Holder:
    if CHILD not in owner._modules:
        if hasattr(owner, CHILD):
            raise AttachError(f"{type(owner).__name__} already has an attribute {CHILD!r} that is not ours.")
        owner.add_module(CHILD, Holder().train(owner.training))
    holders = owner._modules[CHILD]
    assert isinstance(holders, Holder)
    if record.key not in holders._modules:
        holders.add_module(record.key, Holder().train(owner.training))
    holder = holders._modules[record.key]
    assert isinstance(holder, Holder)
    return holder


def _child_name(first: str, second: str) -> str:
    return f"{first}_{second}".replace(".", "_").replace("/", "_")
