"""The factor that an attention puts on q kᵀ, where it computes its softmax itself."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from unipetl.architectures import Projection, columns_of
from unipetl.forms import Heads
from unipetl.inference.tracing import Attention, Call

#: Model types whose scores have no fixed origin for learned keys to be weighed against, and why.
NO_ORIGIN = {"mpt": "its position bias counts from the last key, so that it depends on padding"}


def own_softmax(one: Attention, roles: dict[str, Projection], query: Call, key: Call, heads: Heads) -> float | None:
    """Return the factor c in ``scores = c q kᵀ / sqrt(d) + ...``, or None where there is no such factor.

    It is the second derivative of one score by the query projection's result at its own token and the key
    projection's at the other; whatever else is added (positions, masks) has none. Rotated queries, and keys that
    several queries share, have no single factor.
    """
    scores = one.scores
    if scores is None or query.leaf is None or key.leaf is None or not scores.requires_grad:
        return None
    if query.leaf.dim() != 3 or heads.query_heads != heads.key_heads or scores.shape[-1] != key.leaf.shape[1]:
        return None
    score = scores[..., -1, 0].sum()
    (first,) = torch.autograd.grad(score, [query.leaf], create_graph=True)
    if not first.requires_grad:
        return None
    generator = torch.Generator().manual_seed(2)
    weight = torch.rand(first.shape, generator=generator, dtype=torch.float64).to(first) + 0.5
    weight = weight * _mask(roles["query"], first)
    (second,) = torch.autograd.grad((first * weight).sum(), [key.leaf], retain_graph=True, allow_unused=True)
    if second is None:
        return None
    ratio = _part(roles["key"], second)[:, 0].double() / _part(roles["query"], weight)[:, -1].double()
    half = torch.finfo(scores.dtype).bits < 32 or torch.finfo(query.leaf.dtype).bits < 32
    if not torch.allclose(ratio, ratio.mean(), rtol=3e-2 if half else 1e-3, atol=1e-6) or ratio.mean() <= 0:
        return None
    return _exact(float(ratio.mean()) * math.sqrt(heads.key_dim), heads.key_dim, half=half)


def handed_softmax(one: Attention, role: Projection, query: Call, heads: Heads) -> float | None:
    """Return the factor c in ``scores = c q kᵀ / sqrt(d) + ...`` for the queries q that enter the product.

    They may be turned on their way from the projection; they must be as long as it made them, so that learned keys
    weigh alike for queries of either kind. None where the factor is not the same everywhere, or nothing was seen.
    """
    shape = heads.query_heads, one.rows, heads.key_dim
    if one.query is not None:
        found, factor = one.query, one.factor * math.sqrt(heads.key_dim)
    else:
        if one.product is None or one.scores is None or not one.scores.requires_grad:
            return None
        found, result = one.product
        (slope,) = torch.autograd.grad(one.scores.sum(), [result], retain_graph=True, allow_unused=True)
        if slope is None:
            return None
        used = slope[slope != 0].double()
        last = slope.reshape(-1, slope.shape[-2], slope.shape[-1])[:, -1]
        if not used.numel() or not bool((last != 0).all()) or not torch.allclose(used, used.mean(), rtol=1e-3):
            return None
        factor = float(used.mean()) * one.factor * math.sqrt(heads.key_dim)
    if found.dim() not in (3, 4) or found.numel() % math.prod(shape) or found.shape[-2:] != shape[1:]:
        return None
    if query.leaf is None or factor <= 0:
        return None
    made = _part(role, query.leaf)
    long, short = (one.detach().double().square().sum() for one in (found, made))
    if not torch.allclose(long, short, rtol=3e-2 if torch.finfo(found.dtype).bits < 32 else 1e-4):
        return None
    half = torch.finfo(found.dtype).bits < 32
    return _exact(factor, heads.key_dim, half=half)


def _exact(factor: float, size: int, *, half: bool) -> float | None:
    """Return the factor that models have near what was measured: in half precision one cannot measure better than 1 %.

    That is 1, 1/sqrt(k) where k terms are added up, sqrt(d) where nothing is divided by, 1/sqrt(d) where all is by d.
    """
    terms = range(1, 9)
    usual = (*(1 / math.sqrt(k) for k in terms), *(math.sqrt(k) for k in terms), math.sqrt(size), 1 / math.sqrt(size))
    nearest = min(usual, key=lambda one: abs(one / factor - 1))
    if abs(nearest / factor - 1) < (2e-2 if half else 1e-5):
        return nearest
    return None if half else round(factor, 6)


def _part(projection: Projection, h: Tensor) -> Tensor:
    columns = columns_of(projection, h.shape[-1])
    return h if columns is None else columns.of(h)


def _mask(projection: Projection, h: Tensor) -> Tensor:
    columns = columns_of(projection, h.shape[-1])
    if columns is None:
        return torch.ones_like(h)
    return columns.replaced(torch.zeros_like(h), columns.of(torch.ones_like(h)))
