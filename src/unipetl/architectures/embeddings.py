"""The embeddings that a model names as its own, and what can be the embedding of a stack."""

from __future__ import annotations

import math
from typing import TypeGuard

from torch import nn

from unipetl.architectures.modules import linear_features
from unipetl.errors import ArchitectureError
from unipetl.forms import Features


def token_embedding(model: nn.Module) -> nn.Module | None:
    """Return the module that ``model`` calls its input embeddings, or None."""
    return _asked(model, "get_input_embeddings")


def output_embedding(model: nn.Module) -> nn.Module | None:
    """Return the module that ``model`` calls its output embeddings, or None."""
    return _asked(model, "get_output_embeddings")


def _asked(model: nn.Module, name: str) -> nn.Module | None:
    try:
        found = getattr(model, name, lambda: None)()
    except (NotImplementedError, AttributeError):  # models of several towers do not say
        return None
    return found if isinstance(found, nn.Module) else None


def is_patch_convolution(module: nn.Module) -> TypeGuard[nn.modules.conv._ConvNd]:
    """Return whether a module maps every patch of what it reads linearly: a convolution of all channels at once.

    Its patches may overlap. Dilated, grouped and transposed convolutions, and such as pad by words or otherwise than
    with zeros, are none.
    """
    return (
        isinstance(module, nn.modules.conv._ConvNd)
        and not module.transposed
        and module.groups == 1
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
        and all(step == 1 for step in module.dilation)
        and "weight" in module._parameters
    )


def embedding_shape(module: nn.Module, path: str) -> Features:
    """Return what an embedding reads and gives: a token's number, the numbers of a patch, or the features of a frame.

    Raises:
        ArchitectureError: the module is none.
    """
    if isinstance(module, nn.Embedding):
        return Features(module.num_embeddings, module.embedding_dim, lookup=True)
    if is_patch_convolution(module):
        return Features(module.in_channels * math.prod(module.kernel_size), module.out_channels)
    found = None if isinstance(module, nn.modules.conv._ConvNd) else linear_features(module)
    if found is None:
        raise ArchitectureError(
            f"{path!r} is a {type(module).__name__}; the embedding of a stack is an Embedding, a convolution without "
            "groups or dilation, or a linear map."
        )
    return Features(*found)
