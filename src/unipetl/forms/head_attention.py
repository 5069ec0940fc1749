r"""Attention to learned keys and values in every head: prefix tuning and the multi-head parallel adapter.

.. math:: \Delta h = f(q P_k^\top)\, P_v, \quad q = x W_q / \sqrt{d_h}

per head, with f the softmax (prefix) or ReLU (multi-head parallel adapter). Source: He et al. 2022,
equations 7 to 10 and table 1; Li and Liang 2021. With the gate composition this is exactly one softmax
over learned and own keys; keys and values are used as they are, without projection or position.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from torch import Tensor, nn

from unipetl.axis import refuse_truth
from unipetl.forms.form import CastLayerNorm, Delta, Form, Heads, Init, Shape, normal_, uniform_, view_with, zero_
from unipetl.forms.kept import Kept
from unipetl.forms.together import Together, hidden_units


class Mlp(BaseModel):
    """The reparametrisation ``Z = W_2 tanh(W_1 E + b_1) + b_2`` (Li and Liang 2021; width 800 in the paper).

    One table E (l, d) and one MLP per stack and kind of attention, shared by its layers. Trained, and
    not counted by the paper's rule.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    width: Annotated[int, BeforeValidator(refuse_truth)] = Field(default=800, gt=0)


class HeadAttention(Form):
    """``f(q P_kᵀ) P_v`` in every head.

    Args:
        length: l, the number of learned keys and values.
        activation: f: ``softmax`` (prefix) or ``relu`` (multi-head parallel adapter).
        reparametrization: None trains P_k and P_v directly; an [Mlp][] computes them.
        layer_norm: ``in`` computes q from a layer-normed x (an option of the released code).
        scale_query: whether q is scaled as the model scales it (the released code does not, for BART's
            multi-head parallel adapter).
        dropout: probability, on the learned keys and values, drawn per example.
        init: ``bert`` draws all from N(0, 0.02); ``lora`` starts with zero values. With an Mlp, ``bert``
            means torch's own defaults, as in the released code.
    """

    tag: ClassVar[str] = "head_attention"
    equation: ClassVar[str] = "f(x W_q P_kᵀ) P_v"
    needs: ClassVar[type[Heads]] = Heads

    length: int = Field(gt=0)
    activation: Literal["softmax", "relu"] = "softmax"
    reparametrization: Mlp | None = None
    layer_norm: Literal["none", "in"] = "none"
    scale_query: bool = True
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    init: Init = "bert"

    @model_validator(mode="after")
    def _scaled_softmax(self) -> HeadAttention:
        if self.activation == "softmax" and not self.scale_query:
            raise ValueError("scale_query=False is for activation='relu'; a softmax needs the model's scaling")
        return self

    @property
    def starts_at_zero(self) -> bool:
        """True for ``init='lora'`` (under the add composition): the learned values are 0."""
        return self.init == "lora"

    def build_shared(self, shapes: Sequence[Shape]) -> HeadReparametrization | None:
        """Return the MLP of one stack and kind of attention, or None."""
        if self.reparametrization is None:
            return None
        heads = [shape for shape in shapes if isinstance(shape, Heads)]
        return HeadReparametrization(self, self.reparametrization, heads)

    def build(self, shape: Shape, shared: Delta | None, index: int) -> HeadAttentionDelta:
        """Return the module for one attention."""
        assert isinstance(shape, Heads)
        assert shared is None or isinstance(shared, HeadReparametrization)
        return HeadAttentionDelta(self, shape, shared, index)

    def paper_parameters(self, shape: Shape) -> int:
        """``l (d_k + d_v)`` per attention: 2ld when every head has its own (appendix B)."""
        assert isinstance(shape, Heads)
        return self.length * shape.key_heads * (shape.key_dim + shape.value_dim)


class HeadReparametrization(Delta):
    """``embedding`` (l, d) and the MLP that turns it into every layer's keys and values."""

    def __init__(self, form: HeadAttention, mlp: Mlp, shapes: Sequence[Heads]) -> None:
        super().__init__()
        self.form = form
        self.sizes = [size for s in shapes for size in (s.key_heads * s.key_dim, s.key_heads * s.value_dim)]
        self.embedding = nn.Parameter(torch.empty(form.length, shapes[0].width))
        self.hidden = nn.Parameter(torch.empty(mlp.width, shapes[0].width))
        self.hidden_bias = nn.Parameter(torch.empty(mlp.width))
        self.out = nn.Parameter(torch.empty(sum(self.sizes), mlp.width))
        self.out_bias = nn.Parameter(torch.empty(sum(self.sizes)))
        self.kept: Kept[Tensor] = Kept()
        self.together = Together()

    def reset(self, generator: torch.Generator) -> None:
        """Draw torch's defaults for an embedding and two linear layers; for ``lora`` the values start at 0."""
        normal_(self.embedding, generator, 1.0)
        for weight, bias in ((self.hidden, self.hidden_bias), (self.out, self.out_bias)):
            bound = 1 / math.sqrt(weight.shape[1])
            uniform_(weight, generator, bound)
            uniform_(bias, generator, bound)
        if self.form.init == "lora":
            with torch.no_grad():
                for index in range(1, len(self.sizes), 2):
                    rows = slice(sum(self.sizes[:index]), sum(self.sizes[: index + 1]))
                    self.out[rows] = 0
                    self.out_bias[rows] = 0

    def forward(self, index: int) -> tuple[Tensor, Tensor]:
        """Return the ``index``-th attention's keys and values, each (l, heads * head size)."""
        start = sum(self.sizes[: 2 * index])
        middle, end = start + self.sizes[2 * index], start + sum(self.sizes[2 * index : 2 * index + 2])
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            whole = self._taken(index)
            both = self._computed(slice(start, end)) if whole is None else whole
            return both[:, : middle - start], both[:, middle - start :]
        every = self.kept.get(self.sources, None, lambda: self._computed(slice(None)))
        return every[:, start:middle], every[:, middle:end]

    def _taken(self, index: int) -> Tensor | None:
        """Return keys and values beside each other, computed for all layers at once; None where that is not done."""
        if torch.compiler.is_compiling() or self._forward_pre_hooks or "forward" in self.__dict__:
            return None  # a hook may gather parameters for one call
        sizes = [sum(self.sizes[at : at + 2]) for at in range(0, len(self.sizes), 2)]
        return self.together.take(index, self.sources, sizes)

    @property
    def sources(self) -> tuple[Tensor, ...]:
        """What keys and values are computed from."""
        return self.embedding, self.hidden, self.hidden_bias, self.out, self.out_bias

    def _computed(self, rows: slice) -> Tensor:
        units = hidden_units(self.embedding, self.hidden, self.hidden_bias)
        return nn.functional.linear(units, self.out[rows], self.out_bias[rows])


class HeadAttentionDelta(Delta):
    """The trainable part of a [HeadAttention][] at one attention: ``key`` (l, d_k), ``value`` (l, d_v)."""

    by_row: ClassVar[bool] = True

    def __init__(self, form: HeadAttention, shape: Heads, shared: HeadReparametrization | None, index: int) -> None:
        super().__init__()
        self.form = form
        self.shape = shape
        self.index = index
        self._shared = (shared,)  # a tuple hides it from the module tree: its parameters live once, at the model's root
        direct = shared is None
        self.key = nn.Parameter(torch.empty(form.length, shape.key_heads * shape.key_dim)) if direct else None
        self.value = nn.Parameter(torch.empty(form.length, shape.key_heads * shape.value_dim)) if direct else None
        self.layer_norm = CastLayerNorm(shape.width) if form.layer_norm == "in" else None
        self.kept: Kept[tuple[Tensor, Tensor]] = Kept()

    def reset(self, generator: torch.Generator) -> None:
        """Draw the initial values (see ``init``)."""
        if self.key is not None and self.value is not None:
            normal_(self.key, generator)
            normal_(self.value, generator)
            if self.form.init == "lora":
                zero_(self.value)
        if self.layer_norm is not None:
            self.layer_norm.reset(generator)

    def direct(self) -> tuple[Tensor, Tensor]:
        """Return the learned keys (l, d_k) and values (l, d_v), computed by the MLP if there is one."""
        shared = self.shared
        if shared is not None:
            key, value = shared(self.index)
            return key, value
        assert self.key is not None and self.value is not None
        return self.key, self.value

    def stacked(self, others: Sequence[Delta]) -> HeadAttentionDelta:
        """Return a view of this with keys (rows, l, d_k) and values (rows, l, d_v): MLPs are computed one by one."""
        pairs = [one.direct() for one in others if isinstance(one, HeadAttentionDelta)]
        norms = [one.layer_norm for one in others if isinstance(one, HeadAttentionDelta) and one.layer_norm is not None]
        values = {
            "key": torch.stack([key for key, _ in pairs]),
            "value": torch.stack([value for _, value in pairs]),
        }
        result = view_with(self, values, {"layer_norm": norms[0].stacked(norms)} if norms else None)
        assert isinstance(result, HeadAttentionDelta)
        result._shared = (None,)
        result.kept = Kept()
        return result

    def begin(self) -> None:
        """Note that a sequence begins: nothing is kept from the one before."""
        self.kept.drop()
        if self.shared is not None:
            self.shared.kept.drop()
            self.shared.together.drop()

    @property
    def shared(self) -> HeadReparametrization | None:
        """The MLP that computes these and other attentions' keys and values."""
        return self._shared[0]

    def keys_values(self, batch: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return learned keys (b, key heads, l, key size) and values (b, key heads, l, value size).

        b is 1, or ``batch`` where dropout draws per example, or rows have keys of their own.
        """
        shared = self.shared
        sources = (self.key, self.value) if shared is None else shared.sources
        key, value = self.kept.get([one for one in sources if one is not None], dtype, lambda: self._split(dtype))
        if key.shape[0] not in (1, batch):
            key, value = (one.repeat_interleave(batch // one.shape[0], dim=0) for one in (key, value))
        if self.form.dropout and self.training:
            key = nn.functional.dropout(key.expand(batch, -1, -1, -1), self.form.dropout)
            value = nn.functional.dropout(value.expand(batch, -1, -1, -1), self.form.dropout)
        return key, value

    def _split(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return keys and values (1 or rows, key heads, l, size)."""
        key, value = self.direct()
        length, heads = self.form.length, self.shape.key_heads
        key = key.to(dtype).reshape(-1, length, heads, self.shape.key_dim).transpose(1, 2)
        value = value.to(dtype).reshape(-1, length, heads, self.shape.value_dim).transpose(1, 2)
        return key, value

    def forward(self, query: Tensor, scaling: float, dropout: float) -> Tensor:
        """Return the change (batch, heads, n, value size) for ``query`` (batch, heads, n, key size).

        ``scaling`` is the model's factor on q; ``dropout`` the probability on the attention weights.
        """
        batch, heads, n, size = query.shape
        key, value = self.keys_values(batch, query.dtype)
        grouped = query.reshape(batch, self.shape.key_heads, heads // self.shape.key_heads * n, size)
        logits = grouped @ key.transpose(-1, -2) * (scaling if self.form.scale_query else 1.0)
        if self.form.activation == "relu":
            weights = nn.functional.relu(logits)
        else:
            at_least_float32 = torch.promote_types(logits.dtype, torch.float32)
            weights = torch.softmax(logits, dim=-1, dtype=at_least_float32).to(logits.dtype)
        if dropout:
            weights = nn.functional.dropout(weights, dropout, self.training)
        return (weights @ value).reshape(batch, heads, n, self.shape.value_dim)
