"""What must be known of a model family to place a change in it: typed data, and nothing else.

A table names modules by their path inside a layer (a *block*). A [Site][] is one representation in one
layer of a concrete model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from unipetl.forms import Shape
from unipetl.representation import Kind, Stack


@dataclass(frozen=True, slots=True)
class Port:
    """One end of a module: where a hidden vector can be read and replaced.

    ``columns`` selects part of the last axis, for fused projections.
    """

    module: str
    side: Literal["input", "output"]
    columns: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Projection:
    """A linear map inside a block: part ``part`` of ``parts`` equal parts of the module's result."""

    module: str
    part: int = 0
    parts: int = 1


@dataclass(frozen=True, slots=True)
class AttentionTable:
    """One attention sub-layer of a block.

    Args:
        kind: self or cross attention.
        core: the module that calls transformers' attention interface.
        query, key, value: the projections; what ``query`` reads is the sub-layer's input x.
        output: the output projection, applied to the joined heads.
        norm: the norm before (pre-norm) or after (post-norm) the sub-layer.
        head_dim: attribute of ``core`` that holds the size of one head.
        result: where the sub-layer's result can be changed, if not at ``output``'s end.
        optional: whether some models of the family lack it.
    """

    kind: Kind
    core: str
    query: Projection
    key: Projection
    value: Projection
    output: str
    norm: str
    head_dim: str = "head_dim"
    result: Port | None = None
    optional: bool = False


@dataclass(frozen=True, slots=True)
class FeedForwardTable:
    """The FFN sub-layer of a block.

    Args:
        up, down, gate: the projections; what ``up`` reads is the sub-layer's input x.
        norm: the norm before or after the sub-layer.
        result: where the sub-layer's result y can be changed: after its dropout where that is a module.
        join: where a parallel change joins, after the dropout; None means at ``result``.
    """

    up: Projection
    down: Projection
    norm: str
    result: Port
    gate: Projection | None = None
    join: Port | None = None


@dataclass(frozen=True, slots=True)
class StackTable:
    """A stack of equal blocks.

    Args:
        stack: encoder or decoder.
        root: the stack's module, relative to the base model; "" is the base model itself.
        blocks: the list of blocks, relative to ``root``.
        attentions, feed_forward: the sub-layers.
        norm_first: whether norms come before the sub-layers (pre-norm).
        entry: a module outside the blocks whose result enters them, relative to ``root``.
        tokens: the token embedding, relative to ``root``; "" where a prompt has no place (audio, for one).
        positions: position and segment embeddings that are added to the tokens, relative to ``root``.
        prompt_at: where prompt vectors enter: ``tokens`` in front of the token vectors, ``entry`` in front of
            what ``entry`` reads (embeddings already summed).
        scale: attribute of ``root`` with the factor it puts on token vectors, if outside the embedding.
        rotary: whether queries and keys carry rotary positions.
        causal: whether a token sees only the tokens before it.
    """

    stack: Stack
    root: str
    blocks: str
    attentions: tuple[AttentionTable, ...]
    feed_forward: FeedForwardTable
    norm_first: bool
    entry: str
    tokens: str
    positions: tuple[str, ...] = ()
    prompt_at: Literal["tokens", "entry"] = "tokens"
    scale: str | None = None
    rotary: bool = False
    causal: bool = False


@dataclass(frozen=True, slots=True)
class Architecture:
    """A model family: its ``config.model_type`` values and its stacks."""

    model_types: tuple[str, ...]
    stacks: tuple[StackTable, ...]


@dataclass(frozen=True, slots=True)
class Site:
    """One representation in one layer of one model; every path is absolute.

    Attributes:
        name: stable across model classes of a family, such as ``decoder.3.cross_attention.query``.
        owner: the module that will hold the learned change.
        value: where h is read and replaced.
        join: where a parallel change is added.
        normed, residual: where x is read: as the sub-layer reads it, and before the sub-layer's norm.
        norm_after: the norm that follows h, for ``ffn.residual`` of post-norm models.
        query: the query projection, for heads.
        stack_root, entry: the stack's module and the module whose result enters its blocks.
    """

    name: str
    representation: str
    stack: StackTable
    kind: Kind | None
    layer: int
    owner: str
    shape: Shape
    value: Port
    join: Port
    normed: Port | None
    residual: Port | None
    norm_after: str | None
    query: Projection | None
    stack_root: str
