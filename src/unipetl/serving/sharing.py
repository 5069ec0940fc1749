"""One base in memory for models that differ in their heads: the second computes with the first one's parameters."""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedModel

from unipetl.attaching.state import own_parameters
from unipetl.errors import ServingError


def base_parameters(model: PreTrainedModel) -> dict[str, nn.Parameter]:
    """Return the parameters of the model behind the head, by their names in it."""
    base = model.base_model
    assert isinstance(base, nn.Module)
    return own_parameters(base)


def equal(model: PreTrainedModel, other: PreTrainedModel) -> bool:
    """Say whether two models have the same parameters, of the same values."""
    mine, theirs = own_parameters(model), own_parameters(other)
    return mine.keys() == theirs.keys() and all(torch.equal(one, theirs[name]) for name, one in mine.items())


def share(model: PreTrainedModel, first: PreTrainedModel, source: str) -> None:
    """Let ``model`` compute with the very parameters of ``first`` behind its head.

    Each keeps modules of its own, so attachments to one are not seen by the other. Parameters that only one of them
    has (a pooler) stay its own.

    Args:
        model: a model of the same base; changed in place.
        first: the model in whose memory the base is; no attachment may be active.
        source: what ``model`` was loaded for, for the message.

    Raises:
        ServingError: the bases differ; ``model`` is as it was.
    """
    mine, theirs = base_parameters(model), base_parameters(first)
    both = [name for name in mine if name in theirs]
    for name in both:
        if mine[name].shape != theirs[name].shape or not torch.equal(mine[name], theirs[name]):
            raise ServingError(
                f"{source} is of another base than what is served: {name!r} of its {type(model).__name__} is not that "
                f"of the {type(first).__name__} here. One server has one base; start another one for it."
            )
    if not both:
        raise ServingError(
            f"{source} is of another base than what is served: a {type(model).__name__} has no parameter in common "
            f"with the {type(first).__name__} here. One server has one base; start another one for it."
        )
    base = model.base_model
    assert isinstance(base, nn.Module)
    for name in both:
        path, _, last = name.rpartition(".")
        setattr(base.get_submodule(path), last, theirs[name])
    model.tie_weights()  # an output projection tied to an embedding follows it
