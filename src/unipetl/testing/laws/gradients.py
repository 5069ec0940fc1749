"""A method trains its own parameters, every one of them, and nothing else."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import nn

from unipetl.attaching import Attachment, attach
from unipetl.method import Method
from unipetl.testing.compare import Call, Visits, loss_of, require, scatter

_DRAWS = 4


def trains_its_own_and_nothing_else(
    model: nn.Module, method: Method | str, call: Call, *, unused: Collection[str] = (), **attaching: Any
) -> None:
    """Check which parameters want and get a gradient from one loss.

    Every tensor of the changes must get one other than zero; a ReLU may be off for one draw of random values, so
    several are tried. Pretrained parameters that the method trains must get one, but for those that the call does
    not use (``unused``: a pooler whose result is not read, another tower). An expert that is a module of its own gets
    none where no token visits it.

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
        silent = {name for name in silent if not visits.idle(name)}
        if not silent:
            break
    require(not silent, f"the gradient is zero for {_DRAWS} random values of {', '.join(sorted(silent))}.")


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
