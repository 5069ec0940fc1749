"""Copies of a model that share its weights: many methods fit in memory, and all read the very same pages."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn


def share(model: nn.Module) -> Any:
    """Return a copy with parameters of its own, frozen, on the model's storages. Tied ones stay tied."""
    memo: dict[int, Any] = {
        id(one): nn.Parameter(one.data, requires_grad=False) for one in dict.fromkeys(model.parameters())
    }
    return copy.deepcopy(model, memo)


def trained(model: nn.Module) -> list[nn.Parameter]:
    return [one for one in model.parameters() if one.requires_grad]


def own(changed: nn.Module, base: nn.Module) -> None:
    """Give a copy values of its own where it trains the base's: an optimizer's step must not reach the others."""
    shared = {one.data_ptr() for one in base.parameters()}
    for one in trained(changed):
        if one.data_ptr() in shared:
            one.data = one.data.clone(memory_format=torch.contiguous_format)
