"""Tiny random models of every supported family, and batches for them.

Every parameter, biases and norms too, is drawn wide enough that different functions give clearly different numbers.
"""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from unipetl.errors import unknown
from unipetl.testing.families import LABELS, VOCABULARY, Family, family

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Padding = Literal["none", "right", "left"]
_FIRST_WORD = 5  # smaller ids are pad, begin, end and the like


def build(
    which: Family | str,
    head: str | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    attn_implementation: str | None = None,
    **settings: Any,
) -> PreTrainedModel:
    """Return a tiny random model in evaluation mode.

    Args:
        which: a family or its name.
        head: one of the family's heads; None is its usual one.
        dtype: of every parameter.
        seed: the parameters depend on it and on nothing else.
        attn_implementation: such as ``eager``; None is transformers' default.
        settings: further arguments of the config.
    """
    import transformers

    which = family(which) if isinstance(which, str) else which
    head = which.head if head is None else head
    if head not in which.heads:
        raise KeyError(unknown(f"head of {which.name}", head, which.heads))
    merged = {**which.arguments(head), **settings}
    if attn_implementation is not None:
        merged["attn_implementation"] = attn_implementation
    config = getattr(transformers, which.config)(**merged)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = getattr(transformers, which.heads[head])(config)
    randomize(model, seed=seed)
    return model.to(dtype).eval()  # type: ignore[arg-type]


def copied(model: nn.Module) -> nn.Module:
    """Return a deep copy of a model, in half the time of ``copy.deepcopy``.

    A module holds a dozen containers, most of them for hooks and empty; these are made anew at once, and the copying
    does not walk into them.
    """
    empty = {
        id(value): type(value)()
        for module in model.modules()
        for value in vars(module).values()
        if type(value) in (dict, set, OrderedDict) and not value
    }
    return copy.deepcopy(model, empty)


def randomize(model: nn.Module, *, seed: int = 0) -> None:
    """Draw every trainable parameter anew, in place.

    Matrices keep a vector's size, norms stay near 1 and biases near 0. Frozen parameters (sinusoidal positions) stay.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if not parameter.requires_grad:
                continue
            if parameter.dim() >= 2:
                table = "emb" in name or name.rpartition(".")[0].endswith(("wte", "wpe", "shared"))
                stacked = parameter.dim() == 3 and "expert" in name  # one matrix for each expert
                fan_in = 4 if table else parameter.shape[-1] if stacked else math.prod(parameter.shape[1:])
                parameter.copy_(noise / math.sqrt(fan_in))
            else:
                parameter.copy_(noise * 0.2 + (0.0 if name.endswith("bias") else 1.0))


def batch(
    model: nn.Module,
    *,
    rows: int = 2,
    length: int = 7,
    padding: Padding = "none",
    labels: bool = True,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Return the arguments of one call of ``model``.

    Args:
        model: any model of [build][unipetl.testing.build].
        rows: size of the batch.
        length: tokens in the longest row.
        padding: with ``right`` or ``left`` every row after the first is shorter by two more tokens.
        labels: whether the model can compute a loss from it; if not, a decoder gets tokens of its own, never padded.
        seed: the batch depends on it alone.
    """
    generator = torch.Generator().manual_seed(seed)
    config: Any = model.config
    head = type(model).__name__
    lengths = [max(length - 2 * row * (padding != "none"), 2) for row in range(rows)]
    pad = getattr(config, "pad_token_id", None)
    pad = 0 if pad is None else pad
    ids = torch.full((rows, length), pad)
    mask = torch.zeros(rows, length, dtype=torch.long)
    for row, size in enumerate(lengths):
        where = slice(length - size, length) if padding == "left" else slice(0, size)
        ids[row, where] = torch.randint(_FIRST_WORD, VOCABULARY, (size,), generator=generator)
        mask[row, where] = 1
        if config.is_encoder_decoder and "Classification" in head:  # BART reads a row at its last end-of-text
            ids[row, where.stop - 1] = config.eos_token_id
    audio = config.model_type == "whisper"
    if audio:
        features = (rows, config.num_mel_bins, 2 * config.max_source_positions)
        made = {"input_features": torch.randn(features, generator=generator).to(next(model.parameters()).dtype)}
    else:
        made = {"input_ids": ids, "attention_mask": mask}
    targets = _labels(head, ids, mask, rows, generator) if labels else {}
    if audio and "Classification" not in head:
        made |= {"decoder_input_ids": ids, "decoder_attention_mask": mask}
    elif _reads_two_texts(model) and not targets:
        made["decoder_input_ids"] = torch.randint(_FIRST_WORD, VOCABULARY, (rows, length - 2), generator=generator)
    if head == "BartForCausalLM":  # its cross-attention reads this
        memory = torch.randn(rows, 4, config.d_model, generator=generator)
        made["encoder_hidden_states"] = memory.to(next(model.parameters()).dtype)
    return {**made, **targets}


def prompt(model: nn.Module, **settings: Any) -> dict[str, Tensor]:
    """Return what ``model.generate`` continues; the settings are those of [batch][unipetl.testing.batch]."""
    made = batch(model, labels=False, **settings)
    return {name: value for name, value in made.items() if not name.startswith("decoder_")}


def _reads_two_texts(model: nn.Module) -> bool:
    name = type(model).__name__
    both = bool(model.config.is_encoder_decoder)  # type: ignore[union-attr]
    return both and name.endswith(("Model", "ForConditionalGeneration"))


def _labels(head: str, ids: Tensor, mask: Tensor, rows: int, generator: torch.Generator) -> dict[str, Tensor]:
    words = ids.masked_fill(mask == 0, -100)
    if head.endswith("ForQuestionAnswering"):
        first = mask.argmax(dim=1)
        return {"start_positions": first, "end_positions": first + 1}
    if head.endswith(("ForSequenceClassification", "ForAudioClassification")):
        return {"labels": torch.randint(LABELS, (rows,), generator=generator)}
    if head.endswith("ForTokenClassification"):
        classes = torch.randint(LABELS, ids.shape, generator=generator)
        return {"labels": classes.masked_fill(mask == 0, -100)}
    if head.endswith(("ForCausalLM", "LMHeadModel")):
        return {"labels": words}
    if head.endswith(("ForConditionalGeneration", "MTModel")):
        return {"labels": words}
    return {}
