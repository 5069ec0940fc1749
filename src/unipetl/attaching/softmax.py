r"""Learned keys and values in an attention that computes its softmax itself, outside transformers' interface.

The softmax of the model's own scores S is replaced by that of :math:`[q P_k^\top / s, S]`; the model goes on with its
own part, and :math:`p P_v`, what the learned part gives, joins the heads before the output projection. That is one
softmax over learned and own keys, whatever the model adds to S (positions, masks).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from unipetl.architectures import Projection, columns_of
from unipetl.attaching.heads import HeadItem
from unipetl.attaching.ports import Tape, first_argument, with_first_argument
from unipetl.composition import Gate

_SOFTMAX = {torch.nn.functional.softmax, torch.softmax, Tensor.softmax}


class FirstTape(Tape):
    """Keeps what passes first: some attentions project positions with the same module, after the tokens."""

    def see(self, h: Tensor) -> None:
        """Keep what passes, unless something is kept."""
        if self.value is None:
            self.value = h


@dataclass
class SoftmaxProgram:
    """Every active change of one attention, and what the call under way has computed.

    Attributes:
        queries: sees the query projection's result.
        query: says which of its columns are the queries.
        heads, scaling: the number of heads, and the factor on q kᵀ.
    """

    queries: Tape
    query: Projection
    heads: int
    scaling: float
    items: list[HeadItem] = field(default_factory=list)
    mode: Any = None
    q: Tensor | None = None
    gated: list[tuple[HeadItem, Tensor, Tensor]] = field(default_factory=list)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the call under way behind when the model is copied or pickled."""
        return {**self.__dict__, "mode": None, "q": None, "gated": []}

    def begin(self) -> None:
        """Watch for the softmax."""
        self.gated, self.q, self.queries.value = [], None, None
        if any(isinstance(item.change.modification.composition, Gate) for item in self.items):
            self.mode = _WidenedSoftmax(self)
            self.mode.__enter__()

    def end(self) -> None:
        """Stop watching."""
        if self.mode is not None:
            self.mode.__exit__(None, None, None)
            self.mode = None

    def own_query(self) -> Tensor:
        """Return the model's queries (batch, heads, n, size), as the projection gave them."""
        if self.q is None:
            result = self.queries.take()
            columns = columns_of(self.query, result.shape[-1])
            result = result if columns is None else columns.of(result)
            self.q = result.reshape(*result.shape[:-1], self.heads, -1).transpose(1, 2)
        return self.q

    def widened(self, scores: Tensor, softmax: Any) -> Tensor:
        """Return the probabilities of the model's own keys (..., n, m), and keep those of the learned ones."""
        blocks, found = [], []
        for item in self.items:
            if isinstance(item.change.modification.composition, Gate):
                query = item.own_query(self.own_query()) if item.delta.layer_norm is not None else self.own_query()
                key, value = item.delta.keys_values(query.shape[0], query.dtype)
                logits = query @ key.transpose(-1, -2) * self.scaling
                blocks.append(logits.reshape(*scores.shape[:-1], -1).to(scores.dtype))
                found.append((item, value))
        probabilities = softmax(torch.cat([*blocks, scores], dim=-1))
        start = 0
        for (item, value), block in zip(found, blocks, strict=True):
            part = probabilities[..., start : start + block.shape[-1]]
            self.gated.append((item, part, value))
            start += block.shape[-1]
        return probabilities[..., start:]

    def joined(self, h: Tensor, dropout: float) -> Tensor:
        """Return the heads' results (batch, n, heads * size) with every change added."""
        query = self.own_query()
        shape = (query.shape[0], self.heads, query.shape[2])
        for _, part, value in self.gated:
            weights = nn.functional.dropout(part, dropout) if dropout else part
            own = weights.reshape(*shape, -1).to(value.dtype) @ value
            h = h + own.transpose(1, 2).reshape(h.shape).to(h.dtype)
        for item in self.items:
            if not isinstance(item.change.modification.composition, Gate):
                own_query = item.own_query(query) if item.delta.layer_norm is not None else query
                change = item.delta(own_query, self.scaling, dropout).transpose(1, 2)
                h = item.change.add_to(h, change.reshape(h.shape))
        self.gated, self.q, self.queries.value = [], None, None
        return h


class _WidenedSoftmax(TorchFunctionMode):
    """Widens the first softmax that is computed while it is in force."""

    def __init__(self, program: SoftmaxProgram) -> None:
        super().__init__()
        self.program = program

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in _SOFTMAX or self.program.gated:
            return func(*args, **kwargs)
        scores = args[0] if args else kwargs.pop("input")
        return self.program.widened(scores, lambda wide: func(wide, *args[1:], **kwargs))


@dataclass
class BeginSoftmax:
    """Forward pre-hook on the attention."""

    program: SoftmaxProgram

    def __call__(self, module: nn.Module, args: Any) -> None:
        """Begin."""
        self.program.begin()


@dataclass
class EndSoftmax:
    """Forward hook on the attention, called also when it fails."""

    program: SoftmaxProgram

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        """End."""
        self.program.end()


@dataclass
class JoinSoftmax:
    """Forward pre-hook on the output projection: adds what the learned keys and values give."""

    program: SoftmaxProgram
    core: nn.Module

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the arguments with the heads' results changed."""
        dropout = next((one.p for one in self.core.children() if isinstance(one, nn.Dropout)), 0.0)
        h = self.program.joined(first_argument(args, kwargs), dropout if self.core.training else 0.0)
        return with_first_argument(args, kwargs, h)


SOFTMAX_HOOKS = (BeginSoftmax, EndSoftmax, JoinSoftmax)
