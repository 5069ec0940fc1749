"""The embeddings that a model names as its own."""

from __future__ import annotations

from torch import nn


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
