r"""Learned keys and values in an attention that computes its softmax itself, outside transformers' interface.

The softmax of the model's own scores S is replaced by that of :math:`[q P_k^\top / s, S]`; the model goes on with its
own part, and :math:`p P_v`, what the learned part gives, joins the heads before the output projection. That is one
softmax over learned and own keys, whatever the model adds to S (positions, masks). In training the learned part is
dropped out with the probability with which the model drops out its own.

Queries that the attention rotates first are taken from the product q kᵀ. One that hands them to torch's fused attention
gets the learned keys and values put in front of its own there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from unipetl.architectures import Projection, columns_of
from unipetl.attaching.heads import HeadItem, hidden_from, hide, prepend
from unipetl.attaching.ports import Tape, first_argument, with_first_argument
from unipetl.errors import AttachError
from unipetl.inference.tracing import PRODUCTS, SOFTMAX, first_factor

#: The arguments of torch's fused attention, in order.
_FUSED = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")


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
        handed: whether the queries are those that enter the product with the keys, not the projection's result.
        inside: whether the query projection is part of the attention, or came before it.
        own: the number of the model's own probabilities in the call under way, once its softmax was computed.
        dropout: the probability with which the model has dropped those out, None before.
    """

    queries: Tape
    query: Projection
    heads: int
    scaling: float
    items: list[HeadItem] = field(default_factory=list)
    inside: bool = True
    handed: bool = False
    factor: tuple[Tensor, int] | None = None
    q: Tensor | None = None
    own: int | None = None
    dropout: float | None = None
    gated: list[tuple[HeadItem, Tensor, Tensor]] = field(default_factory=list)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the call under way behind when the model is copied or pickled."""
        return {**self.__dict__, "q": None, "factor": None, "own": None, "dropout": None, "gated": []}

    def begin(self) -> None:
        """Forget the call before."""
        self.gated, self.q, self.factor, self.own, self.dropout = [], None, None, None, None
        if self.inside:
            self.queries.value = None

    def own_query(self) -> Tensor:
        """Return the model's queries (batch, heads, n, size), as the projection gave them or as they were handed on.

        Raises:
            AttachError: nothing was multiplied with the keys.
        """
        if self.q is None and self.handed:
            raise self._computed_none()
        if self.q is None:
            result = self.queries.take()
            columns = columns_of(self.query, result.shape[-1])
            result = result if columns is None else columns.of(result)
            self.q = result.reshape(*result.shape[:-1], self.heads, -1).transpose(1, 2)
        return self.q

    def widened(self, scores: Tensor, softmax: Any) -> Tensor:
        """Return the probabilities of the model's own keys (..., n, m), and keep those of the learned ones."""
        blocks, found = [], []
        if self.handed and self.factor is not None and self.factor[1] == scores.numel():
            q = self.factor[0]
            self.q = q.reshape(-1, self.heads, *q.shape[-2:])
        for item in self.items:
            if item.gated:
                query = item.own_query(self.own_query()) if item.has_query else self.own_query()
                key, value = item.keys_values(query.shape[0], query.dtype)
                logits = query @ key.transpose(-1, -2) * self.scaling
                valid = item.valid(query.shape[0], query.device)
                if valid is not None:
                    logits = logits.masked_fill(~valid[:, None, None], float("-inf"))
                blocks.append(logits.reshape(*scores.shape[:-1], -1).to(scores.dtype))
                found.append((item, value))
        probabilities = softmax(torch.cat([*blocks, scores], dim=-1) if blocks else scores)
        self.own, start = scores.numel(), 0
        for (item, value), block in zip(found, blocks, strict=True):
            part = probabilities[..., start : start + block.shape[-1]]
            self.gated.append((item, part, value))
            start += block.shape[-1]
        return probabilities[..., start:]

    def joined(self, h: Tensor) -> Tensor:
        """Return the heads' results (batch, n, heads * size) with every change added.

        Raises:
            AttachError: no softmax was computed in this call, so that a prefix would have no effect.
        """
        gates = any(item.gated for item in self.items)
        if gates and self.own is None:
            raise self._computed_none()
        query, dropout = self.own_query(), self.dropout or 0.0
        shape = (query.shape[0], self.heads, query.shape[2])
        for _, part, value in self.gated:
            weights = nn.functional.dropout(part, dropout) if dropout else part
            own = weights.reshape(*shape, -1).to(value.dtype) @ value
            h = h + own.transpose(1, 2).reshape(h.shape).to(h.dtype)
        for item in self.items:
            if not item.gated:
                own_query = item.own_query(query) if item.has_query else query
                h = item.joined(h, own_query, self.scaling, dropout)
        self.gated, self.q, self.queries.value = [], None, None
        return h

    def fused(self, call: dict[str, Any], compute: Any) -> Any:
        """Return the fused attention's result (batch, heads, n, size) with learned keys and values in front.

        Args:
            call: the function's arguments, by name: a query (batch, heads, n, size), a key and a value (batch, key
                heads, m, size), and others.
            compute: the function.
        """
        query, key, value = (call.pop(one) for one in _FUSED[:3])
        self.q, self.own, self.dropout = query, key.shape[-2], float(call.get("dropout_p") or 0.0)
        items = [item for item in self.items if item.gated]
        if not items:
            return compute(query, key, value, **call)
        length, mask = sum(item.length for item in items), call.get("attn_mask")
        if call.get("is_causal"):
            mask = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device).tril()[None, None]
        mask = (
            None if mask is None else nn.functional.pad(mask, (length, 0), value=1 if mask.dtype == torch.bool else 0)
        )
        hidden = hidden_from(items, query.shape[0], query.device)
        if hidden is not None:
            mask = hide(mask, hidden, key, "sdpa")
        scale = call.get("scale")
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        query, key, value = prepend(items, query, key, value)
        return compute(query, key, value, **{**call, "attn_mask": mask, "is_causal": False, "scale": scale})

    @staticmethod
    def _computed_none() -> AttachError:
        return AttachError(
            "'attention.heads': this attention was found to compute a softmax of its own, and in this call it "
            "computed none, so learned keys cannot act. If its implementation was changed, detach, change it, and "
            "attach again."
        )


class _WidenedSoftmax(TorchFunctionMode):
    """Widens the first softmax that is computed while it is in force, and notes the dropout of its result."""

    def __init__(self, program: SoftmaxProgram) -> None:
        super().__init__()
        self.program = program

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is nn.functional.dropout:
            self._see_dropout(*args, **kwargs)
        if self.program.handed and self.program.own is None:
            if func is nn.functional.scaled_dot_product_attention:
                names = dict(zip(_FUSED, args, strict=False), **kwargs)
                return self.program.fused(names, func)
            if func in PRODUCTS:
                result = func(*args, **kwargs)
                self.program.factor = first_factor(func, args, kwargs), result.numel()
                return result
        if func not in SOFTMAX or self.program.own is not None:
            return func(*args, **kwargs)
        scores = args[0] if args else kwargs.pop("input")
        return self.program.widened(scores, lambda wide: func(wide, *args[1:], **kwargs))

    def _see_dropout(self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> None:
        """Note what is done to the probabilities; the arguments are those of the function."""
        if self.program.dropout is None and input.numel() == self.program.own:
            self.program.dropout = p if training else 0.0


@dataclass
class WithSoftmax:
    """Stands before the attention's forward; hooks would not be told of a keyboard interrupt."""

    program: SoftmaxProgram
    real: Any

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the attention with its softmax watched."""
        self.program.begin()
        with _WidenedSoftmax(self.program):
            return self.real(*args, **kwargs)


@dataclass
class JoinSoftmax:
    """Forward pre-hook on the output projection: adds what the learned keys and values give."""

    program: SoftmaxProgram

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the arguments with the heads' results changed."""
        h = self.program.joined(first_argument(args, kwargs))
        return with_first_argument(args, kwargs, h)


SOFTMAX_HOOKS = (JoinSoftmax, WithSoftmax)
