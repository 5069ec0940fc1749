"""What the released code reads off a model: its family, depths and dropout probabilities."""

from __future__ import annotations

from typing import Any

from torch import nn

from unipetl.errors import InteropError
from unipetl.interop.official_options import Family, Options

FAMILIES: tuple[Family, ...] = ("bart", "mbart", "roberta")
_STACKS = ("encoder.layers", "decoder.layers")
_LAYERS: dict[Family, tuple[str, ...]] = {"bart": _STACKS, "mbart": _STACKS, "roberta": ("encoder.layer",)}


def family_of(model: nn.Module) -> Family:
    """Return which of the three forked models ``model`` is.

    Raises:
        InteropError: it is none of them.
    """
    found = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
    for family in FAMILIES:
        if found == family:
            return family
    raise InteropError(f"model: the released code knows {', '.join(FAMILIES)}; this is {found!r}.")


def dropouts_of(model: nn.Module, family: Family) -> tuple[float, float]:
    """Return the model's dropout probabilities, of results and of attention weights; adapters take them over."""
    config: Any = model.config
    if family == "roberta":
        return float(config.hidden_dropout_prob), float(config.attention_probs_dropout_prob)
    return float(config.dropout), float(config.attention_dropout)


def depths_of(model: nn.Module, family: Family) -> tuple[int, int]:
    """Return the number of layers of the encoder and of the decoder (of the encoder again, on RoBERTa).

    Raises:
        InteropError: a stack that the released code needs is not there.
    """
    base = getattr(model, "base_model", model)
    config: Any = model.config
    if family == "roberta" and getattr(config, "add_cross_attention", False):
        raise InteropError("model: the released code has no RoBERTa with cross-attention.")
    modules = dict(base.named_modules())
    stacks = [modules.get(path) for path in _LAYERS[family]]
    depths = [len(stack) for stack in stacks if isinstance(stack, nn.ModuleList)]
    if len(depths) < len(stacks):
        raise InteropError(
            f"model: {type(model).__name__} has not both an encoder and a decoder, and the released code's "
            f"{family} has."
        )
    return depths[0], depths[-1]


def refuse_uneven_stacks(model: nn.Module, asked: Options, family: Family, depths: tuple[int, int]) -> None:
    """Refuse stacks that make the released prefixes fail: a decoder that is deeper, or has another number of heads.

    Raises:
        InteropError: with the two numbers.
    """
    if family == "roberta" or asked.attn_mode not in ("prefix", "prefix_nomlp"):
        return
    config: Any = model.config
    if depths[1] > depths[0]:
        raise InteropError(
            f"attn_mode {asked.attn_mode!r}: the released code has a prefix for each of the encoder's {depths[0]} "
            f"layers and raises IndexError for a decoder of {depths[1]}."
        )
    if config.encoder_attention_heads != config.decoder_attention_heads:
        raise InteropError(
            f"attn_mode {asked.attn_mode!r}: the released code splits every prefix into the decoder's "
            f"{config.decoder_attention_heads} heads and fails on an encoder with {config.encoder_attention_heads}."
        )
