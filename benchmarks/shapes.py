"""The shapes that are measured: a model's sizes and a batch's. Weights are random: speed does not depend on them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
import transformers


@dataclass(frozen=True)
class Shape:
    """A model's sizes and a batch's.

    Attributes:
        layers: of the encoder or decoder; an encoder-decoder model has as many of each.
        rows: examples in a batch.
        tokens: of every example; of the source, where there is a target.
        targets: tokens of the target, in an encoder-decoder model.
        prompt: tokens that `generate` begins with, in a decoder.
        new_tokens: that `generate` writes.
    """

    name: str
    title: str
    family: str
    layers: int
    width: int
    heads: int
    key_heads: int
    hidden: int
    vocabulary: int
    rows: int
    tokens: int
    targets: int = 64
    prompt: int = 64
    new_tokens: int = 32
    dtype: str = "float32"

    @property
    def generates(self) -> bool:
        return self.family in ("bart", "llama")


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("roberta", "RoBERTa-base", "roberta", 12, 768, 12, 12, 3072, 50265, rows=8, tokens=128),
        # In the real ones the output projection is a share of 12 (BART-large) and 32 (Llama 2 7B) layers. So the
        # vocabularies shrink with the depth, or the projection would hide what a layer's change costs.
        Shape("bart", "BART-large, shallow", "bart", 2, 1024, 16, 16, 4096, 8192, rows=4, tokens=128),
        Shape("llama", "Llama, small", "llama", 4, 1024, 16, 16, 2816, 1024, rows=1, tokens=512),
        Shape("minilm", "MiniLM-L6-H384", "bert", 6, 384, 12, 12, 1536, 30522, rows=16, tokens=128),
        Shape("llama-narrow", "Llama, narrow", "llama", 4, 512, 8, 8, 1408, 1024, rows=4, tokens=256),
        # For an accelerator.
        Shape("bart-large", "BART-large", "bart", 12, 1024, 16, 16, 4096, 50265, rows=16, tokens=512),
        Shape("llama-7b", "Llama 2 7B", "llama", 32, 4096, 32, 32, 11008, 32000, 4, 512, dtype="bfloat16"),
    )
}


def shape(name: str, **changes: Any) -> Shape:
    """Return the shape of that name with other sizes where ``changes`` has a value that is not None."""
    return dataclasses.replace(SHAPES[name], **{key: value for key, value in changes.items() if value is not None})


def build(of: Shape, device: str) -> Any:
    """Return a random model of the shape; of an encoder, with a head of two classes."""
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, of.dtype))  # a large model is never in memory in float32
    try:
        with torch.device(device):
            return _random(of).to(device=device, dtype=getattr(torch, of.dtype)).eval()
    finally:
        torch.set_default_dtype(before)


def _random(of: Shape) -> Any:
    common: dict[str, Any] = {"vocab_size": of.vocabulary}
    encoder = common | {
        "hidden_size": of.width,
        "num_hidden_layers": of.layers,
        "num_attention_heads": of.heads,
        "intermediate_size": of.hidden,
    }
    if of.family == "roberta":
        config = transformers.RobertaConfig(**encoder, max_position_embeddings=514, type_vocab_size=1, pad_token_id=1)
        return transformers.RobertaForSequenceClassification(config)
    if of.family == "bert":
        return transformers.BertForSequenceClassification(transformers.BertConfig(**encoder))
    if of.family == "llama":
        settings = encoder | {"num_key_value_heads": of.key_heads, "max_position_embeddings": 2048}
        return transformers.LlamaForCausalLM(transformers.LlamaConfig(**settings, pad_token_id=0))
    sizes = {"layers": of.layers, "attention_heads": of.heads, "ffn_dim": of.hidden}
    stacks = {f"{stack}_{what}": size for stack in ("encoder", "decoder") for what, size in sizes.items()}
    settings = common | stacks | {"d_model": of.width, "max_position_embeddings": 1024}
    model = transformers.BartForConditionalGeneration(transformers.BartConfig(**settings))
    model.generation_config.forced_eos_token_id = None  # all runs write as many tokens
    return model


def batch(of: Shape, device: str) -> dict[str, torch.Tensor]:
    """Return a batch without padding, with labels.

    Shapes:
        input_ids, attention_mask: (rows, tokens). labels: (rows,), (rows, targets) or (rows, tokens).
    """
    draw = torch.Generator().manual_seed(1)
    low = 5  # below are the special tokens

    def ids(tokens: int) -> torch.Tensor:
        return torch.randint(low, of.vocabulary, (of.rows, tokens), generator=draw)

    found = {"input_ids": ids(of.tokens), "attention_mask": torch.ones(of.rows, of.tokens, dtype=torch.long)}
    if of.family == "bart":
        found["labels"] = ids(of.targets)
    elif of.family == "llama":
        found["labels"] = found["input_ids"].clone()
    else:
        found["labels"] = torch.randint(0, 2, (of.rows,), generator=draw)
    return {name: value.to(device) for name, value in found.items()}


def prompt(of: Shape, device: str) -> dict[str, torch.Tensor]:
    """Return what `generate` begins with: the source of an encoder-decoder model, the beginning of a decoder's text."""
    length = of.tokens if of.family == "bart" else of.prompt
    found = batch(of, device)
    return {name: found[name][:, :length] for name in ("input_ids", "attention_mask")}
