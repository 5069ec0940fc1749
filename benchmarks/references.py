"""What methods are measured against: the bare model, the floor of training, and training the head or everything."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

BARE, FLOOR, HEAD, FULL = "bare", "floor", "head only", "full fine-tuning"
LARGEST_FULL = 2_000_000_000  # parameters
TITLES = {
    BARE: "bare model",
    FLOOR: "training floor",
    HEAD: "head only",
    FULL: "full fine-tuning",
}


def add_floor(model: Any) -> None:
    """Train one vector, added to the result of every token embedding, and nothing else.

    The gradient then has to pass every layer's activations, down to the first layer, and nothing is done in a layer:
    what any method costs that changes the first layer.
    """
    model.requires_grad_(False)
    tables = [
        one
        for one in model.modules()
        if isinstance(one, nn.Embedding) and one.num_embeddings == model.config.vocab_size
    ]
    vector = nn.Parameter(torch.zeros_like(tables[0].weight[0]))
    model.register_parameter("floor", vector)
    for table in tables:
        table.register_forward_hook(lambda module, arguments, result: result + vector)


def train_head(model: Any) -> bool:
    """Train the head of a classifier alone; False where there is none."""
    model.requires_grad_(False)
    head = getattr(model, "classifier", None)
    if head is None:
        return False
    head.requires_grad_(True)
    return True


def make(name: str, model: Any) -> str | None:
    """Make a frozen copy the reference of that name; what is returned says why there is none."""
    if name == FULL and model.num_parameters() > LARGEST_FULL:
        return "its gradients and AdamW's state leave no room for the others"
    if name == FLOOR:
        add_floor(model)
    elif name == FULL:
        model.requires_grad_(True)
    elif name == HEAD and not train_head(model):
        return "a language model has no head of its own"
    return None
