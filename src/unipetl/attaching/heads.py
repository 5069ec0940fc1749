"""Changes inside attention, through transformers' own attention interface.

The attention module gets a *view* of its config that names our attention function; everything else in
the view is the config itself, so the implementation in force (sdpa, eager, flash) and its mask are
whatever the model is set to, also when that is changed later. Learned keys and values are put in front at
every call: the cache holds the model's own keys only, and no position moves.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from unipetl.architectures import Projection, columns_of
from unipetl.attaching.gated import gated, is_possible
from unipetl.attaching.ports import Change, Tape
from unipetl.composition import Gate
from unipetl.errors import AttachError
from unipetl.forms import HeadAttention
from unipetl.forms.head_attention import HeadAttentionDelta

NAME = "unipetl"


@dataclass
class HeadItem:
    """One change in an attention; ``tape`` and ``query_module`` serve forms that compute their own query."""

    change: Change
    tape: Tape | None = None
    query_module: nn.Module | None = None
    query: Projection | None = None

    @property
    def delta(self) -> HeadAttentionDelta:
        """The form's trainable part."""
        assert isinstance(self.change.delta, HeadAttentionDelta)
        return self.change.delta

    @property
    def gated(self) -> bool:
        """Whether it shares the model's softmax; otherwise it is added to the heads' results."""
        return isinstance(self.change.modification.composition, Gate)

    @property
    def has_query(self) -> bool:
        """Whether it computes a query of its own."""
        return self.delta.layer_norm is not None

    @property
    def partial(self) -> bool:
        """Whether some rows have only some of its keys."""
        return False

    @property
    def length(self) -> int:
        """The number of its keys."""
        form = self.delta.form
        assert isinstance(form, HeadAttention)
        return form.length

    def keys_values(self, batch: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return keys (batch or 1, key heads, l, key size) and values (batch or 1, key heads, l, value size)."""
        return self.delta.keys_values(batch, dtype)

    def valid(self, batch: int, device: torch.device) -> Tensor | None:
        """Return which rows have which of its keys, Boolean (batch, l); None means all have all."""
        del batch, device
        return None

    def normed(self, x: Tensor) -> Tensor:
        """Return what its own query is computed from, shaped like ``x`` (batch, n, width)."""
        assert self.delta.layer_norm is not None
        return self.delta.layer_norm(x)

    def joined(self, h: Tensor, query: Tensor, scaling: float, dropout: float) -> Tensor:
        """Return the heads' results ``h`` (batch, n, ...) plus the change for ``query`` (batch, heads, n, size)."""
        change = self.delta(query, scaling, dropout).transpose(1, 2)
        return self.change.add_to(h, change.reshape(h.shape))

    def own_query(self, like: Tensor) -> Tensor:
        """Return ``W_q LN(x)`` split into heads, shaped like the model's query (batch, heads, n, size)."""
        assert self.tape is not None and self.query_module is not None and self.query is not None
        result = self.query_module.forward(self.normed(self.tape.take()))
        columns = columns_of(self.query, result.shape[-1])
        result = result if columns is None else columns.of(result)
        return result.view(like.shape[0], like.shape[2], like.shape[1], like.shape[3]).transpose(1, 2).to(like.dtype)


@dataclass
class HeadProgram:
    """Every active change of one attention."""

    gated: list[HeadItem] = field(default_factory=list)
    added: list[HeadItem] = field(default_factory=list)

    def append(self, item: HeadItem) -> None:
        """Add a change, by its composition."""
        (self.gated if item.gated else self.added).append(item)


def attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    """Compute the attention in force with the module's learned keys and values.

    Shapes: ``query`` (batch, heads, n, d_k), ``key`` and ``value`` (batch, key heads, m, d_k or d_v); the result
    is (batch, n, heads, d_v), and the weights, where there are any, are those on the model's own m keys.
    """
    carrier: Any = module
    program: HeadProgram = carrier._unipetl_heads
    implementation: str = carrier.config._unipetl_config._attn_implementation
    inner = implementation_in_force(module, implementation)
    scaling = kwargs.get("scaling")
    scaling = float(query.shape[-1] ** -0.5) if scaling is None else scaling
    dropout = float(kwargs.get("dropout", 0.0) or 0.0)
    original = query
    if not program.gated:
        output, weights = inner(module, query, key, value, attention_mask, **kwargs)
    elif _together(program.gated) and is_possible(inner, query, key, value, attention_mask, kwargs):
        learned = _learned(program.gated, query)
        causal = kwargs.get("is_causal")
        output, weights = gated(module, query, (key, value), learned, attention_mask, scaling, causal), None
    else:
        length = sum(_length(item) for item in program.gated)
        mask, key, value, kwargs = widen(module, query, key, value, attention_mask, length, implementation, kwargs)
        hidden = hidden_from(program.gated, query.shape[0], query.device)
        if hidden is not None:
            mask = hide(mask, hidden, key, implementation)
        query, key, value = prepend(program.gated, query, key, value)
        output, weights = inner(module, query, key, value, mask, **{**kwargs, "scaling": scaling})
        weights = None if weights is None else weights[..., length:]
    for item in program.added:
        own = item.own_query(original) if item.has_query else original
        output = item.joined(output, own, scaling, dropout)
    return output, weights


def _together(items: Sequence[HeadItem]) -> bool:
    """Return whether every row sees all learned keys, by the model's own queries."""
    return not any(item.has_query or item.partial for item in items)


def _learned(items: Sequence[HeadItem], query: Tensor) -> tuple[Tensor, Tensor]:
    """Return the learned keys and the learned values, (batch or 1, key heads, l, size) each."""
    blocks = [item.keys_values(query.shape[0], query.dtype) for item in items]
    if len(blocks) == 1:
        return blocks[0]
    size = max(key.shape[0] for key, _ in blocks)
    keys, values = zip(
        *((key.expand(size, -1, -1, -1), value.expand(size, -1, -1, -1)) for key, value in blocks), strict=True
    )
    return torch.cat(keys, dim=2), torch.cat(values, dim=2)


def _length(item: HeadItem) -> int:
    return item.length


def hidden_from(items: Sequence[HeadItem], batch: int, device: torch.device) -> Tensor | None:
    """Return which of the learned keys a row must not see, Boolean (batch, l); None if every row sees all."""
    valid = [item.valid(batch, device) for item in items]
    if all(one is None for one in valid):
        return None
    full = [
        torch.ones(batch, item.length, dtype=torch.bool, device=device) if one is None else one
        for item, one in zip(items, valid, strict=True)
    ]
    return torch.cat(full, dim=1).logical_not()


def hide(mask: Tensor | None, hidden: Tensor, key: Tensor, implementation: str) -> Tensor:
    """Return the widened ``mask`` with ``hidden`` (batch, l) hidden as well; ``key`` are the model's own keys.

    None, which lets every query see everything, becomes a mask of the kind that the implementation takes.
    """
    batch, length = hidden.shape
    if mask is None:
        shape = (1, length + key.shape[2]) if "flash" in implementation else (1, 1, 1, length + key.shape[2])
        additive = implementation == "eager"
        mask = torch.zeros(shape, dtype=key.dtype, device=key.device) if additive else hidden.new_ones(shape)
    mask = mask.expand(batch, *mask.shape[1:])
    hidden = hidden.view(batch, *(1 for _ in mask.shape[2:]), length).expand(*mask.shape[:-1], length)
    never = float("-inf") if mask.dtype.is_floating_point else 0
    return torch.cat([mask[..., :length].masked_fill(hidden, never), mask[..., length:]], dim=-1)


def prepend(items: list[HeadItem], query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Put learned keys and values in front of the model's own.

    A change with a query of its own is put into extra feature columns, in which only its own keys are not zero:
    one softmax then sees ``q' P_k`` beside ``q K``.
    """
    batch = key.shape[0]
    blocks = [_as_many(item.keys_values(batch, key.dtype), key.shape[1]) for item in items]
    own = [item.has_query for item in items]
    if any(own):
        queries = [query]
        columns = query.shape[-1]
        places = []
        for item, has_own in zip(items, own, strict=True):
            places.append(columns if has_own else 0)
            if has_own:
                queries.append(item.own_query(query))
                columns += query.shape[-1]
        size = query.shape[-1]
        query = torch.cat(queries, dim=-1)
        key = nn.functional.pad(key, (0, columns - size))
        blocks = [
            (nn.functional.pad(k, (place, columns - size - place)), v)
            for (k, v), place in zip(blocks, places, strict=True)
        ]
    keys = [k.to(key.device).expand(batch, -1, -1, -1) for k, _ in blocks]
    values = [v.to(value.device).expand(batch, -1, -1, -1) for _, v in blocks]
    return query, torch.cat([*keys, key], dim=2), torch.cat([*values, value], dim=2)


def _as_many(block: tuple[Tensor, Tensor], heads: int) -> tuple[Tensor, Tensor]:
    """Return keys and values for ``heads`` heads: a model may have repeated its own for the queries that share them."""
    key, value = block
    times = heads // key.shape[1]
    return block if times == 1 else (key.repeat_interleave(times, dim=1), value.repeat_interleave(times, dim=1))


def widen(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Any,
    length: int,
    implementation: str,
    kwargs: dict[str, Any],
) -> tuple[Any, Tensor, Tensor, dict[str, Any]]:
    """Let every query see ``length`` more keys in front, in whatever way the implementation masks.

    Returns the mask, the model's keys and values, and the keyword arguments, to be used together.
    """
    bias = kwargs.get("position_bias")
    n = query.shape[2]
    if mask is None and implementation == "sdpa":
        causal = kwargs.get("is_causal")
        causal = getattr(module, "is_causal", True) if causal is None else causal
        if causal and n > 1:  # no mask means: query i sees the keys 0 to i, and later ones are unused cache
            key, value = key[:, :, :n], value[:, :, :n]
            bias = None if bias is None else bias[..., :n]
            mask = torch.ones(n, n, dtype=torch.bool, device=query.device).tril()[None, None]
    if mask is not None and not isinstance(mask, Tensor):
        raise AttachError(
            f"attention implementation {implementation!r} masks with a {type(mask).__name__}, which cannot be widened "
            "for learned keys; call model.set_attn_implementation('sdpa') or 'eager'."
        )
    if "flash" in implementation and kwargs.get("sliding_window") is not None:
        raise AttachError(
            f"attention implementation {implementation!r} with a sliding window would cut the learned keys off; "
            "call model.set_attn_implementation('sdpa') or 'eager'."
        )
    if mask is not None:
        visible = 0 if mask.dtype.is_floating_point else 1
        mask = nn.functional.pad(mask, (length, 0), value=visible)
    if bias is not None:
        kwargs = {**kwargs, "position_bias": nn.functional.pad(bias, (length, 0))}
    return mask, key, value, kwargs


def implementation_in_force(module: nn.Module, name: str) -> Callable[..., Any]:
    """Return the attention function that ``module`` would call without us."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    eager = None
    for cls in type(module).__mro__:
        eager = getattr(sys.modules.get(cls.__module__), "eager_attention_forward", None)
        if eager is not None:
            break
    found: Callable[..., Any] = ALL_ATTENTION_FUNCTIONS.get_interface(name, eager)  # type: ignore[arg-type]
    return found


def view_of(config: Any) -> Any:
    """Return a view of ``config`` whose attention implementation is ours.

    The view shares the config's attributes: what is set on one is seen on the other.
    """
    from transformers.modeling_utils import AttentionInterface

    AttentionInterface.register(NAME, attention)
    view: Any = object.__new__(_view_class(type(config)))
    object.__setattr__(view, "__dict__", config.__dict__)
    object.__setattr__(view, "_unipetl_config", config)
    return view


_VIEWS: dict[type, type] = {}


def _view_class(base: type) -> type:
    if base not in _VIEWS:
        _VIEWS[base] = type(
            f"{base.__name__}View",
            (base,),
            {
                "__slots__": ("_unipetl_config",),
                "__reduce__": lambda self: (view_of, (self._unipetl_config,)),
                "__deepcopy__": _deepcopy_view,
                "_attn_implementation": property(lambda self: NAME),
                "__init_subclass__": classmethod(lambda cls, **_: None),
            },
        )
    return _VIEWS[base]


def _deepcopy_view(self: Any, memo: dict[int, Any]) -> Any:
    import copy

    return view_of(copy.deepcopy(self._unipetl_config, memo))
