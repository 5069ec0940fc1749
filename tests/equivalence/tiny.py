"""Attached tiny models for the tests that compare a model with itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor

import unipetl
from equivalence.checks import randomize
from unipetl.testing import build

PREFIX = "prefix_tuning(length=5, mlp=none)"
PROMPT = "prompt_tuning(length=5)"
MAM = "mam(length=5, rank=4, mlp=none)"
ENCODERS = ("bert", "roberta", "distilbert")
DECODERS = ("gpt2", "llama", "mistral", "qwen2", "qwen3")
SEQ2SEQ = ("bart", "mbart", "marian", "t5", "t5_gated")


@cache
def model(family: str, head: str | None = None, *, dtype: torch.dtype = torch.float64, **settings: Any) -> Any:
    """Return a tiny model, one per process: leave it bare."""
    return build(family, head, dtype=dtype, **settings)


@contextmanager
def attached(one: Any, text: str | unipetl.Method, *, spread: float = 0.5) -> Iterator[dict[str, Tensor]]:
    """Attach a method with random values, give its tensors, detach at the end."""
    attachment = unipetl.attach(one, text)
    try:
        tensors = attachment.tensors()
        randomize({name: tensor for name, tensor in tensors.items() if not name.startswith("model/")}, spread=spread)
        yield tensors
    finally:
        attachment.detach()


def words(rows: int = 2, length: int = 7, *, seed: int = 1) -> Tensor:
    """Return token ids without special ones."""
    return torch.randint(5, 50, (rows, length), generator=torch.Generator().manual_seed(seed))


def padded(ids: Tensor, side: str, pad: int = 1) -> dict[str, Tensor]:
    """Return the last row two tokens shorter, with padding on ``side``, as a model's arguments.

    With side ``none`` there is no mask at all; with ``ones`` there is one that hides nothing.
    """
    if side == "none":
        return {"input_ids": ids}
    mask = torch.ones_like(ids)
    if side in ("right", "left"):
        where = slice(-2, None) if side == "right" else slice(0, 2)
        mask[-1, where] = 0
        ids = ids.masked_fill(mask == 0, pad)
    return {"input_ids": ids, "attention_mask": mask}


def first(output: Any) -> Tensor:
    """Return the logits, or the last hidden states."""
    return output.logits if hasattr(output, "logits") else output.last_hidden_state
