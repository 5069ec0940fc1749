"""On a bfloat16 model everything works without casts by the user."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from unipetl.attaching import attach
from unipetl.method import Method
from unipetl.testing.compare import Call, Visits, loss_of, outputs, require, scatter


def computes_in_bfloat16(model: nn.Module, method: Method | str, call: Call, **attaching: Any) -> None:
    """Attach to the model in bfloat16, compute, and take gradients. A model that cannot itself is passed over.

    Raises:
        CheckError: the law does not hold.
    """
    model = model.bfloat16()
    call = {name: value.bfloat16() if _real(value) else value for name, value in call.items()}
    try:
        wanted = outputs(model, call).dtype
    except (RuntimeError, TypeError, ValueError):
        return
    attachment = scatter(attach(model, method, **attaching), size=0.1)
    result = outputs(model, call)
    require(result.dtype == wanted, f"the result is {result.dtype}, and {wanted} without the method.")
    require(bool(torch.isfinite(result).all()), "the result is not finite.")
    own = {name: tensor for name, tensor in attachment.tensors().items() if not name.startswith("model/")}
    require(all(tensor.dtype == torch.float32 for tensor in own.values()), "the changes' values are not float32.")
    with Visits(model, attachment) as visits:
        loss = loss_of(model, call)
    if loss.requires_grad:
        torch.autograd.backward(loss)
    reached = all(tensor.grad is not None or visits.idle(name) for name, tensor in own.items())
    require(reached, "a change gets no gradient.")


def _real(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()
