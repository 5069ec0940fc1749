"""Transformer stacks as plain functions of weight tensors, with a callback at every representation.

Nothing here knows transformers or unipetl's hooks: a layer is written once, in pre-norm and post-norm order, and says
``h = change(place, h, ...)`` wherever the design space can change a vector. With the identity as the change it must
equal the transformers model, which the tests check first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import layer_norm, linear

Linear = tuple[Tensor, Tensor | None]
Norm = Callable[[Tensor], Tensor]


def apply(weights: Linear, x: Tensor) -> Tensor:
    return linear(x, *weights)


def make_layer_norm(weight: Tensor, bias: Tensor, eps: float) -> Norm:
    return lambda x: layer_norm(x, weight.shape, weight, bias, eps)


def t5_norm(weight: Tensor, eps: float) -> Norm:
    return lambda x: weight * (x * torch.rsqrt(x.to(torch.float32).pow(2).mean(-1, keepdim=True) + eps))


def llama_norm(weight: Tensor, eps: float) -> Norm:
    def norm(x: Tensor) -> Tensor:
        single = x.to(torch.float32)
        return weight * (single * torch.rsqrt(single.pow(2).mean(-1, keepdim=True) + eps)).to(x.dtype)

    return norm


class NoChange:
    """The bare model."""

    def __call__(self, place: str, h: Tensor, **_: object) -> Tensor:
        return h

    def heads(self, place: str, own: Tensor, **_: object) -> Tensor:
        return own

    def prompt(self, place: str) -> Tensor | None:
        return None


@dataclass
class Attention:
    query: Linear
    key: Linear
    value: Linear
    output: Linear
    norm: Norm
    heads: int
    key_heads: int
    scaling: float


@dataclass
class FeedForward:
    up: Linear
    down: Linear
    norm: Norm
    activation: Callable[[Tensor], Tensor]
    gate: Linear | None = None


@dataclass
class Layer:
    attentions: dict[str, Attention]  # kind -> attention, in order
    ffn: FeedForward


@dataclass
class Stack:
    """``embed`` gives the vectors that a prompt is put in front of; ``entry`` is what they go through next."""

    name: str
    layers: list[Layer]
    norm_first: bool
    embed: Callable[[Tensor], Tensor]
    entry: Norm = field(default=lambda x: x)
    last: Norm = field(default=lambda x: x)
    causal: bool = False
    window: int | None = None
    position_bias: Callable[[int], Tensor] | None = None  # length -> (1, heads, n, n)
    rotate: Callable[[Tensor, Tensor], Tensor] | None = None  # vectors (b, heads, n, size), positions (n,)


def split(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def join(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)


def visible(mask: Tensor, n: int, causal: bool, window: int | None = None) -> Tensor:
    """Return 0 where query may see key and -inf elsewhere, (b, 1, n, m)."""
    seen = mask[:, None, None, :].bool().expand(-1, 1, n, -1)
    if causal:
        distance = torch.arange(n)[:, None] - torch.arange(mask.shape[1])[None]
        seen = seen & (distance >= 0)
        if window is not None:
            seen = seen & (distance < window)
    return torch.zeros(seen.shape, dtype=torch.float64).masked_fill(~seen, float("-inf"))


def run_attention(
    change: NoChange,
    place: str,
    weights: Attention,
    x: Tensor,
    memory: Tensor,
    residual: Tensor,
    bias: Tensor,
    rotate: Callable[[Tensor], Tensor] | None,
) -> Tensor:
    query = change(f"{place}.query", apply(weights.query, x), x=x, residual=x)
    key = change(f"{place}.key", apply(weights.key, memory), x=memory, residual=memory)
    value = change(f"{place}.value", apply(weights.value, memory), x=memory, residual=memory)
    q, k, v = split(query, weights.heads), split(key, weights.key_heads), split(value, weights.key_heads)
    if rotate is not None:
        q, k = rotate(q), rotate(k)
    group = weights.heads // weights.key_heads
    k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
    mass = torch.exp(q @ k.transpose(-1, -2) * weights.scaling + bias)
    own = mass @ v / mass.sum(-1, keepdim=True)

    def own_query(other: Tensor) -> Tensor:
        return split(apply(weights.query, other), weights.heads)

    heads = change.heads(
        f"{place}.heads",
        own,
        query=q,
        own_mass=mass.sum(-1, keepdim=True),
        scaling=weights.scaling,
        key_heads=weights.key_heads,
        x=x,
        own_query=own_query,
    )
    joined = change(f"{place}.heads", join(heads), x=x, residual=residual)
    result = change(f"{place}.output", apply(weights.output, joined), x=joined, residual=joined)
    return change(place, result, x=x, residual=residual)


def run_ffn(change: NoChange, place: str, weights: FeedForward, x: Tensor, residual: Tensor) -> Tensor:
    up = change(f"{place}.up", apply(weights.up, x), x=x, residual=x)
    if weights.gate is None:
        hidden = weights.activation(up)
    else:
        hidden = weights.activation(change(f"{place}.gate", apply(weights.gate, x), x=x, residual=x)) * up
    hidden = change(f"{place}.hidden", hidden, x=x, residual=residual)
    result = change(f"{place}.down", apply(weights.down, hidden), x=hidden, residual=hidden)
    return change(place, result, x=x, residual=residual)


def run_stack(
    stack: Stack,
    change: NoChange,
    ids: Tensor,
    mask: Tensor,
    memory: Tensor | None = None,
    memory_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the last hidden states, prompt rows included, and the mask that goes with them."""
    h = stack.embed(ids)
    positions = torch.arange(ids.shape[1])
    prompt = change.prompt(f"{stack.name}.input")
    if prompt is not None:
        h = torch.cat([prompt.expand(h.shape[0], -1, -1), h], dim=1)
        mask = torch.cat([mask.new_ones(mask.shape[0], len(prompt)), mask], dim=1)
        positions = torch.arange(-len(prompt), ids.shape[1])
    h = stack.entry(h)
    n = h.shape[1]
    own_bias = visible(mask, n, stack.causal, stack.window)
    if stack.position_bias is not None:
        own_bias = own_bias + stack.position_bias(n)
    rotate = None if stack.rotate is None else lambda vectors: stack.rotate(vectors, positions)
    for number, layer in enumerate(stack.layers):
        start = h
        for kind, attention in layer.attentions.items():
            cross = kind == "cross"
            x = attention.norm(h) if stack.norm_first else h
            bias = visible(memory_mask, n, causal=False) if cross else own_bias
            place = f"{stack.name}.{number}.{kind}_attention"
            result = run_attention(change, place, attention, x, memory if cross else x, h, bias, rotate)
            h = h + result if stack.norm_first else attention.norm(h + result)
        ffn, place = layer.ffn, f"{stack.name}.{number}.ffn"
        x = ffn.norm(h) if stack.norm_first else h
        result = run_ffn(change, place, ffn, x, h)
        norm_after = None if stack.norm_first else ffn.norm
        h = change(f"{place}.residual", h + result, norm_after=norm_after)
        h = h if stack.norm_first else ffn.norm(h)
        h = change(f"{stack.name}.{number}.block", h, x=start, residual=start)
    return stack.last(h), mask
