"""What counts as a linear map: Linear, Conv1D of transformers, quantised ones; known by their sizes."""

from __future__ import annotations

from torch import nn

from unipetl.architectures import linear_features


def is_linear(module: nn.Module) -> bool:
    """Return whether ``module`` maps the last axis linearly and says from how many features to how many."""
    return features(module) is not None


def features(module: nn.Module) -> tuple[int, int] | None:
    """Return the numbers of features that a linear map reads and gives, or None for another module."""
    if isinstance(module, nn.modules.conv._ConvNd) or next(module.children(), None) is not None:
        return None
    return linear_features(module)
