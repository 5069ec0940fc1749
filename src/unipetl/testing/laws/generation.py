"""Generated text is the same with a cache as without one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from unipetl.attaching import attach
from unipetl.method import Method
from unipetl.testing.compare import Call, close, require, scatter

NEW_TOKENS = 4


def generate(model: Any, prompt: Call, **settings: Any) -> tuple[Tensor, Tensor]:
    """Return the tokens (rows, length) and the scores (rows, steps, words) of a deterministic generation."""
    with torch.no_grad():
        made = model.generate(
            **prompt,
            do_sample=False,
            min_new_tokens=NEW_TOKENS,
            max_new_tokens=NEW_TOKENS,
            return_dict_in_generate=True,
            output_scores=True,
            **settings,
        )
    return made.sequences, torch.stack(made.scores, dim=1)


def generates_the_same_without_cache(
    model: nn.Module,
    method: Method | str,
    prompt: Call,
    *,
    beams: int = 1,
    atol: float = 1e-8,
    cache: str | None = None,
    **attaching: Any,
) -> None:
    """Attach with random values and generate with and without a cache.

    Args:
        model: a model that can generate.
        method: the method.
        prompt: what ``generate`` continues.
        beams: 1 is greedy search.
        atol: how far scores may differ.
        cache: transformers' name of a kind of cache, such as ``static``; None is the default.
        attaching: further arguments of ``attach``.

    Raises:
        CheckError: the law does not hold.
    """
    scatter(attach(model, method, **attaching))
    plain, plain_scores = generate(model, prompt, num_beams=beams, use_cache=False)
    kind = {} if cache is None else {"cache_implementation": cache}
    cached, cached_scores = generate(model, prompt, num_beams=beams, use_cache=True, **kind)
    require(torch.equal(plain, cached), f"other tokens with a cache: {cached.tolist()} instead of {plain.tolist()}.")
    close(cached_scores, plain_scores, "scores with a cache against without", atol)
