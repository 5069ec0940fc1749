"""Training leaves the base model's keys and weights alone, but for those the method trains."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import nn

from unipetl.attaching import attach
from unipetl.method import Method
from unipetl.testing.compare import Call, Visits, loss_of, require, same, scatter


def leaves_the_base_alone(
    model: nn.Module,
    method: Method | str,
    call: Call,
    *,
    steps: int = 2,
    unused: Collection[str] = (),
    **attaching: Any,
) -> None:
    """Attach, take optimizer steps with weight decay over every parameter that asks for them, and compare.

    Parameters of the model that the call does not use (``unused``) need not move, though the method trains them.

    Raises:
        CheckError: the law does not hold.
    """
    before = {name: value.clone() for name, value in model.state_dict().items()}
    attachment = scatter(attach(model, method, **attaching))
    shared = {name: id(parameter) for name, parameter in model.named_parameters(remove_duplicate=False)}
    attached = model.state_dict()
    for name, value in before.items():
        require(name in attached, f"attaching lost the key {name!r}.")
        same(attached[name], value, f"{name} after attaching")
    extra = [name for name in attached if name not in before and ".unipetl." not in f".{name}"]
    require(not extra, f"attaching added keys outside its own place: {extra[:3]}.")
    start = {name: tensor.detach().clone() for name, tensor in attachment.tensors().items()}
    own = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not own:
        return
    optimizer = torch.optim.AdamW(own, lr=1e-2, weight_decay=0.1)
    visits = Visits(model, attachment)
    for _ in range(steps):
        optimizer.zero_grad()
        with visits:
            loss = loss_of(model, call)
        if loss.requires_grad:  # not where all that is trained lies in a tower that the call does not use
            torch.autograd.backward(loss)
        optimizer.step()
    trained = {id(tensor) for tensor in attachment.tensors().values()}
    after = model.state_dict()
    for name, value in before.items():
        if shared.get(name) not in trained:
            same(after[name], value, f"{name}, which is not trained, after {steps} steps")
    for name, tensor in attachment.tensors().items():
        idle = name.removeprefix("model/") in unused or visits.idle(name)
        require(idle or not torch.equal(tensor, start[name]), f"{name} did not move in {steps} steps.")
