"""What must be known of a model family to place a change in it: typed data, and nothing else.

A table names modules by their path inside a layer (a *block*). A [Site][] is one representation in one
layer of a concrete model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from unipetl.forms import Heads, Shape
from unipetl.representation import Kind


@dataclass(frozen=True, slots=True)
class Columns:
    """Some features of a last axis: ``count`` runs of ``size`` neighbours, the first at ``start``, ``step`` apart.

    One run is a part of a fused projection; several are a part that is laid out head by head.
    """

    start: int
    size: int
    count: int = 1
    step: int = 0

    @property
    def features(self) -> int:
        """How many features these are."""
        return self.size * self.count

    def of(self, h: Tensor) -> Tensor:
        """Map (..., features of the whole) to (..., features)."""
        if self.count == 1:
            return h[..., self.start : self.start + self.size]
        if h.shape[-1] != self.count * self.step:
            return h[..., self.places(h.device)]
        inner = h.reshape(*h.shape[:-1], self.count, self.step)
        return inner[..., self.start : self.start + self.size].flatten(-2)

    def replaced(self, h: Tensor, part: Tensor) -> Tensor:
        """Return ``h`` (..., features of the whole) with ``part`` (..., features) in these places."""
        if self.count == 1:
            return torch.cat([h[..., : self.start], part, h[..., self.start + self.size :]], dim=-1)
        return h.index_copy(-1, self.places(h.device), part)

    def places(self, device: torch.device | None = None) -> Tensor:
        """Return the indices of these features, (features,)."""
        runs = self.start + self.step * torch.arange(self.count, device=device)
        return (runs[:, None] + torch.arange(self.size, device=device)).flatten()


@dataclass(frozen=True, slots=True)
class Port:
    """One end of a module: where a hidden vector can be read and replaced.

    ``columns`` selects part of the last axis, for fused projections.
    """

    module: str
    side: Literal["input", "output"]
    columns: Columns | None = None


@dataclass(frozen=True, slots=True)
class Projection:
    """A linear map inside a block, or some of its result: part ``part`` of ``parts`` equal ones, or ``columns``."""

    module: str
    part: int = 0
    parts: int = 1
    columns: Columns | None = None


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
        heads: numbers and sizes of the heads, where they do not follow from ``head_dim`` and the projections.
        reads: the module whose argument is the sub-layer's input x, if not ``query``.
        result: where the sub-layer's result can be changed, if not at ``output``'s end.
        softmax: None where ``core`` calls transformers' attention interface. A ``core`` that computes one softmax of
            its own has the factor on q kᵀ here, in units of 1/sqrt(head size).
        handed: whether such a ``core`` changes its queries before q kᵀ (rotates them, say), or hands them to torch's
            fused attention; they are then taken from there, and not from the query projection.
        optional: whether some models or some blocks of the family lack it.
        layers: the numbers of the blocks that it describes, where others have the same modules laid out otherwise.
    """

    kind: Kind
    core: str
    query: Projection
    key: Projection
    value: Projection
    output: str
    norm: str | None
    head_dim: str = "head_dim"
    heads: Heads | None = None
    reads: str | None = None
    result: Port | None = None
    softmax: float | None = None
    handed: bool = False
    optional: bool = False
    layers: frozenset[int] | None = None


@dataclass(frozen=True, slots=True)
class ExpertsTable:
    """FFNs inside a mixture: the experts that a token may visit, or one that every token visits.

    Args:
        name: ``experts`` for those that a router chooses from, ``shared`` for one that is always used.
        up, down, gate: the projections. A path may name a linear module; those of many experts with ``*`` for the
            number (``mlp.experts.*.w1``); or a parameter that holds a matrix for each expert
            (``mlp.experts.gate_up_proj``). A gate and an up projection in one are parts 0 and 1 of 2, in any order.
        transposed: whether such a parameter is (experts, in, out) and not (experts, out, in).
        interleaved: whether parts of one module or parameter alternate, feature by feature.
        biased: whether the experts add biases after the product with such a parameter.
    """

    name: Literal["experts", "shared"]
    up: Projection
    down: Projection
    gate: Projection | None = None
    transposed: bool = False
    interleaved: bool = False
    biased: bool = False


@dataclass(frozen=True, slots=True)
class FeedForwardTable:
    """The FFN sub-layer of a block.

    Args:
        up, down, gate: the projections; what ``up`` reads is the sub-layer's input x. A mixture of experts has none
            of its own: all three are None, and ``reads`` is given.
        norm: the norm before or after the sub-layer.
        reads: the module whose argument is x, if not ``up``.
        result: where the sub-layer's result y can be changed: after its dropout where that is a module.
        join: where a parallel change joins, after the dropout; None means at ``result``.
        optional: whether some blocks lack it.
        experts: the FFNs inside a mixture.
        closed: a mixture whose experts are not understood; a plan says that it does not reach them.
    """

    up: Projection | None
    down: Projection | None
    norm: str | None
    result: Port
    gate: Projection | None = None
    reads: str | None = None
    join: Port | None = None
    optional: bool = False
    experts: tuple[ExpertsTable, ...] = ()
    closed: str | None = None


@dataclass(frozen=True, slots=True)
class StackTable:
    """A stack of equal blocks.

    Args:
        stack: its name: ``encoder``, ``decoder``, or what it sees in a model of several (``vision``, ``text``).
        root: the stack's module, relative to the base model; "" is the base model itself.
        blocks: the list of blocks, relative to ``root``; ``*`` stands for every item of an outer list, whose blocks
            are counted through (``encoder.layers.*.blocks``).
        attentions: the attention sub-layers.
        feed_forward: the FFN sub-layer, or None.
        alternatives: what the FFN is in blocks where ``feed_forward`` is not found (a mixture of experts, say).
        norm_first: whether norms come before the sub-layers (pre-norm).
        entry: a module outside the blocks whose result enters them, relative to ``root``; "" if there is none.
        tokens: the token embedding, relative to ``root``; "" where a prompt has no place (audio, for one).
        embedding: the module that makes a vector of a token (an Embedding) or of a patch (a convolution, a Linear),
            relative to the base model; "" if there is none.
        positions: position and segment embeddings that are added to the tokens, relative to ``root``.
        prompt_at: where prompt vectors enter: ``tokens`` in front of the token vectors, ``entry`` in front of
            what ``entry`` reads (embeddings already summed).
        scale: attribute of ``root`` with the factor it puts on token vectors, if outside the embedding.
        rotary: whether queries and keys carry rotary positions.
        causal: whether a token sees only the tokens before it.
    """

    stack: str
    root: str
    blocks: str
    attentions: tuple[AttentionTable, ...]
    feed_forward: FeedForwardTable | None
    norm_first: bool
    entry: str
    tokens: str
    alternatives: tuple[FeedForwardTable, ...] = ()
    embedding: str = ""
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
class Stacked:
    """What a place is where its matrices are a parameter: one of ``owner``, with a matrix for each expert.

    Attributes:
        parameter: its name in the owner.
        transposed: whether it is (experts, in, out) and not (experts, out, in).
        biased: whether a bias is added to the product.
    """

    parameter: str
    transposed: bool
    biased: bool


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
        softmax, handed: see [AttentionTable][], for heads.
        stack_root, entry: the stack's module and the module whose result enters its blocks.
        inside: "" outside mixtures; ``experts`` or ``shared`` inside (see [ExpertsTable][]).
        expert: which of the experts, where each has modules of its own.
        stacked: set where one parameter holds the matrices of all experts; ports then name the parameter as a module.
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
    softmax: float | None = None
    handed: bool = False
    inside: str = ""
    expert: int | None = None
    stacked: Stacked | None = None
