"""Gradient checkpointing, of either kind, changes no gradient."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unipetl.attaching import attach
from unipetl.errors import CheckError
from unipetl.method import Method
from unipetl.testing.compare import Call, close, loss_of, scatter


def trains_through_checkpoints(model: nn.Module, method: Method | str, call: Call, **attaching: Any) -> None:
    """Compare the gradients of the changes with and without checkpoints, in training mode and with the same seed.

    A model that does not support checkpoints, fails under them when it is frozen, or draws from other random numbers
    than torch's in training, is passed over; for reentrant ones also a model whose own gradients they change or lose,
    as its layers hand something on beside their results (keys that later layers share) or results inside others.

    Raises:
        CheckError: the law does not hold.
    """
    if not getattr(model, "supports_gradient_checkpointing", False) or not _computes_frozen(model, call):
        return
    bare = copy.deepcopy(model)
    scatter(attachment := attach(model, method, **attaching))
    own = {name: tensor for name, tensor in attachment.tensors().items() if not name.startswith("model/")}
    if not own:
        return
    model.train()
    wanted = _gradients(model, own, call)
    again = _gradients(model, own, call)
    if not all(torch.equal(again[name], gradient) for name, gradient in wanted.items()):
        return
    for reentrant in (False, True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the name is being changed, and caches are switched off aloud
            _enable(model, reentrant)
            try:
                found = _gradients(model, own, call)
            except RuntimeError:
                if reentrant and not _keeps_gradients(bare, call):
                    return
                raise
        for name, gradient in wanted.items():
            kind = "reentrant" if reentrant else "plain"
            try:
                close(found[name], gradient, f"the gradient of {name} with {kind} checkpoints")
            except CheckError:
                if reentrant and not _keeps_gradients(bare, call):
                    return
                raise


def _keeps_gradients(model: nn.Module, call: Call) -> bool:
    """Return whether the bare model, trained as a whole, has the same gradients under reentrant checkpoints."""
    model.train().requires_grad_(True)
    own: dict[str, Tensor] = dict(model.named_parameters())
    wanted = _gradients(model, own, call)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _enable(model, True)
        try:
            found = _gradients(model, own, call)
        except RuntimeError:
            return False
    return all(torch.allclose(found[name], gradient, rtol=1e-9, atol=1e-9) for name, gradient in wanted.items())


def _enable(model: nn.Module, reentrant: bool) -> None:
    enable: Any = model.gradient_checkpointing_enable
    enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})


def _computes_frozen(model: nn.Module, call: Call) -> bool:
    """Return whether the frozen model itself computes under checkpoints: some change their token vectors in place."""
    frozen = copy.deepcopy(model).train().requires_grad_(False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _enable(frozen, False)
            loss_of(frozen, call)
    except RuntimeError:
        return False
    return True


def _gradients(model: nn.Module, own: Mapping[str, Tensor], call: Call) -> dict[str, Tensor]:
    model.zero_grad(set_to_none=True)
    numbers = np.random.get_state()  # masks of sound are drawn from these
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            np.random.seed(0)
            torch.autograd.backward(loss_of(model, call))
    finally:
        np.random.set_state(numbers)
    return {name: torch.zeros_like(t) if t.grad is None else t.grad.clone() for name, t in own.items()}
