"""What the laws of arithmetic are compared with: models with a term attached, and changes multiplied by hand."""

from __future__ import annotations

import copy

import torch

import unipetl
from unipetl import arithmetic


def alone(model, term):
    """A bare model with the term attached."""
    bare = copy.deepcopy(model)
    for attachment in unipetl.attachments(bare):
        attachment.detach()
    arithmetic.put(bare, term)
    return bare


def multiplied(model, name, weight):
    """Multiply what every change is linear in, by hand."""
    attachment = unipetl.attachments(model)["ab".index(name)]
    normed = any(getattr(one.form, "layer_norm", "none") == "out" for one in attachment.method.modifications)
    linear = ("layer_norm.weight", "layer_norm.bias") if normed else ("up", "up_bias", "value")
    with torch.no_grad():
        for key, value in attachment.tensors().items():
            if key.split("/")[2].removeprefix("each.") in linear:
                value.mul_(weight)
