"""A method trains its own parameters, every one of them, and nothing else."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from unipetl.architectures.modules import find_module
from unipetl.attaching import Attachment, attach
from unipetl.attaching.ports import first_argument
from unipetl.method import Method
from unipetl.testing.compare import Call, Visits, loss_of, require, scatter

#: Rank 3 with one token to see is off for one in eight.
_DRAWS = 12


def trains_its_own_and_nothing_else(
    model: nn.Module, method: Method | str, call: Call, *, unused: Collection[str] = (), **attaching: Any
) -> None:
    """Check which parameters want and get a gradient from one loss.

    Every tensor of the changes must get one other than zero; a ReLU may be off for one draw of random values, so
    several are tried. Pretrained parameters that the method trains must get one, but for those that the call does
    not use (``unused``: a pooler whose result is not read, another tower); changes to the results of modules whose
    every matrix is among these get none either. An expert that is a module of its own gets none where no token
    visits it, and what reads nothing but zeros (DETR's decoder starts with them) leaves a down-projection without.

    Raises:
        CheckError: the law does not hold.
    """
    attachment = attach(model, method, **attaching)
    wanted = {id(tensor) for tensor in attachment.tensors().values()}
    for name, parameter in model.named_parameters():
        if id(parameter) in wanted:
            require(parameter.requires_grad, f"{name} is the method's own and is frozen.")
        else:
            require(not parameter.requires_grad, f"{name} is not the method's own and would be trained.")
    silent = {name for name in attachment.tensors() if not name.startswith("model/")}
    for seed in range(_DRAWS):
        scatter(attachment, seed=seed)
        with Visits(model, attachment) as visits:
            silent -= _moved(model, attachment, call, {f"model/{name}" for name in unused}, visits)
        silent = {name for name in silent if not visits.idle(name)} - _at_unused(model, attachment, unused)
        if not silent:
            break
    silent -= _reading_zeros(model, attachment, call, silent)
    require(not silent, f"the gradient is zero for {_DRAWS} random values of {', '.join(sorted(silent))}.")


def _at_unused(model: nn.Module, attachment: Attachment, unused: Collection[str]) -> set[str]:
    """Return the names of tensors at places whose modules' matrices have no gradient in the bare model."""
    found = set()
    for one in attachment.plan.placements:
        path = one.site.join.module
        owner = find_module(model, path)
        own = {} if owner is None else {f"{path}.{name}": value for name, value in owner.named_parameters()}
        matrices = [name for name, value in own.items() if value.dim() > 1 and not value.requires_grad]
        if matrices and all(name in unused for name in matrices):
            found |= {name for name in attachment.tensors() if name.startswith(f"{one.key}/")}
    return found


def _reading_zeros(model: nn.Module, attachment: Attachment, call: Call, silent: Collection[str]) -> set[str]:
    """Return the silent down-projections at places where the frozen module that reads x is given zeros."""
    given: dict[str, list[Tensor]] = {}
    handles = []
    for one in attachment.plan.placements:
        if f"{one.key}/down" not in silent or one.site.normed is None or one.site.normed.side != "input":
            continue
        module = model.get_submodule(one.site.normed.module)

        def see(_: nn.Module, args: Any, kwargs: Any, key: str = one.key) -> None:
            given.setdefault(f"{key}/down", []).append(first_argument(args, kwargs))

        handles.append(module.register_forward_pre_hook(see, with_kwargs=True))
    loss_of(model, call)
    for handle in handles:
        handle.remove()
    return {name for name, visits in given.items() if not any(bool(x.any()) for x in visits)}


def _moved(model: nn.Module, attachment: Attachment, call: Call, unused: set[str], visits: Visits) -> set[str]:
    model.zero_grad(set_to_none=True)
    loss = loss_of(model, call)
    require(bool(torch.isfinite(loss)), f"the loss is {loss.item()}.")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        return set()
    own = attachment.tensors()
    if not loss.requires_grad:
        idle = set(own) <= unused
        require(idle, "no gradient can be taken: what the method trains does not act on the loss.")
        return set(own)
    torch.autograd.backward(loss)
    for name, tensor in own.items():
        if name in unused or visits.idle(name):
            continue
        require(tensor.grad is not None, f"{name} gets no gradient.")
        require(tensor.grad is not None and bool(torch.isfinite(tensor.grad).all()), f"{name} has a bad gradient.")
    ids = {id(tensor) for tensor in own.values()}
    for name, parameter in model.named_parameters():
        require(id(parameter) in ids or parameter.grad is None, f"{name} is not the method's own and gets a gradient.")
    return {name for name, tensor in own.items() if tensor.grad is not None and bool(tensor.grad.ne(0).any())}
