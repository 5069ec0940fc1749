r"""The gate without a copy: attention to learned keys beside attention to the model's own, joined as the paper has it.

One softmax over learned and own keys is the sum of two attentions, weighted by their shares of it (He et al. 2022,
equation 7):

.. math:: h \leftarrow (1 - \lambda)\, h + \lambda\, \Delta h, \quad
    \lambda = \frac{\sum_j e^{q P_{k,j}^\top s}}{\sum_j e^{q P_{k,j}^\top s} + \sum_i e^{q K_i^\top s}}

The model's own keys, values and mask then stay as they are: nothing is put in front of them, and a causal kernel stays
causal. It needs a kernel that also gives the logarithm of its softmax's denominator. torch's on a CPU does; elsewhere,
and wherever anything is out of the ordinary, learned keys are put in front (see [heads][unipetl.attaching.heads]).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

#: Attribute of a mask that holds it as addends, for all layers that are given it.
ADDENDS = "_unipetl_addends"
#: What transformers' attention of the name "sdpa" may be told beside what is done here.
UNKNOWN = ("position_bias", "cache", "softcap")

#: Where one query reads fewer numbers than this, to copy them takes less time than the more operations here.
SMALL = 1 << 16

_is_tracing: Any = torch.jit.is_tracing  # type: ignore[attr-defined]
_is_flash_enabled: Any = torch.backends.cuda.flash_sdp_enabled
_forward: Any = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_backward: Any = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def is_possible(
    inner: Callable[..., Any], query: Tensor, key: Tensor, value: Tensor, mask: Any, kwargs: Mapping[str, Any]
) -> bool:
    """Return whether an attention's call can be computed so, and faster: torch's own kernel on a CPU, no dropout.

    Args:
        inner: the attention function in force.
        query: what it is called with, (batch, heads, n, size).
        key: likewise, (batch, key heads, m, size).
        value: likewise, (batch, key heads, m, size).
        mask: likewise.
        kwargs: likewise, by name.
    """
    if torch.compiler.is_compiling() or _is_tracing() or not _is_flash_enabled():  # by sdpa_kernel(), on a CPU as well
        return False
    if query.device.type != "cpu" or type(query) is not Tensor:
        return False
    if kwargs.get("dropout") or any(kwargs.get(name) is not None for name in UNKNOWN):
        return False
    if key.shape[-1] != value.shape[-1] or not query.dtype == key.dtype == value.dtype or not min(key.shape):
        return False
    if query.shape[2] == 1 and key.numel() < SMALL:
        return False
    if any(one.stride(-1) != 1 for one in (query, key, value)) or not query.shape[2]:
        return False
    if mask is not None and (not isinstance(mask, Tensor) or mask.dim() != 4 or mask.requires_grad):
        return False
    return _is_sdpa(inner) and torch._C._functorch.peek_interpreter_stack() is None


def _is_sdpa(inner: Callable[..., Any]) -> bool:
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    return inner is sdpa_attention_forward


def gated(
    module: nn.Module,
    query: Tensor,
    own: tuple[Tensor, Tensor],
    learned: tuple[Tensor, Tensor],
    mask: Tensor | None,
    scaling: float,
    is_causal: bool | None,
) -> Tensor:
    """Return what one softmax over ``learned`` and ``own`` keys and values gives, (batch, n, heads, size).

    Args:
        module: the attention; what it says of causality counts where the call says nothing.
        query: (batch, heads, n, size).
        own: the model's keys and values, (batch, key heads, m, size) each.
        learned: (batch or 1, key heads, l, size) each.
        mask: (batch or 1, heads or 1, n or 1, m), for the own keys; None sees all, or causally.
        scaling: s.
        is_causal: whether None means causally.
    """
    key, value = own
    n = query.shape[2]
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    causal = bool(causal) and mask is None and n > 1
    if causal:  # query i sees the keys 0 to i; later ones are unused cache
        key, value = key[:, :, :n], value[:, :, :n]
    groups = query.shape[1] // key.shape[1]
    if groups > 1 and n == 1 and (mask is None or mask.shape[1] == 1):
        packed = query.reshape(query.shape[0], key.shape[1], groups, query.shape[3])
        result = _joined(packed, key, value, *learned, mask, causal, scaling, n == 1)
        return result.reshape(query.shape).transpose(1, 2)
    if groups > 1:
        key, value = (one.repeat_interleave(groups, dim=1) for one in (key, value))
        learned = (learned[0].repeat_interleave(groups, dim=1), learned[1].repeat_interleave(groups, dim=1))
    return _joined(query, key, value, *learned, mask, causal, scaling, n == 1).transpose(1, 2)


def _joined(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    learned_key: Tensor,
    learned_value: Tensor,
    mask: Tensor | None,
    causal: bool,
    scaling: float,
    one: bool,
) -> Tensor:
    tensors: Any = query, key, value, learned_key, learned_value
    device = query.device.type
    if query.dtype == torch.float32 and torch.is_autocast_enabled(device):  # as torch's own attention does
        tensors = [one.to(torch.get_autocast_dtype(device)) for one in tensors]
    dtype = tensors[0].dtype
    addends = None if mask is None else _addends(mask, dtype).expand(-1, -1, query.shape[2], -1)
    with torch.autocast(device, enabled=False):
        if torch.is_grad_enabled() and any(one.requires_grad for one in tensors):
            result: Tensor = _Gated.apply(*tensors, addends, causal, scaling)  # type: ignore[no-untyped-call]
            return result
        everything: Any = *tensors, addends, causal, scaling
        return _of_one(*everything) if one and learned_key.shape[0] == 1 else _compute(*everything)[0]


def _addends(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a mask as finite addends: a row of -inf would have no logarithm of its sum."""
    kept = getattr(mask, ADDENDS, None)
    facts = None if mask.is_inference() else (mask._version, mask.data_ptr(), dtype)
    if kept is not None and facts is not None and kept[0] == facts:
        found: Tensor = kept[1]
        return found
    lowest = torch.finfo(dtype).min
    if mask.dtype == torch.bool:
        result = torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, lowest)
    else:
        result = mask.to(dtype).clamp(min=lowest)
    setattr(mask, ADDENDS, (facts, result))
    return result


def _folded(one: Tensor, *, shared: bool) -> Tensor:
    """Return (batch, heads, n, any) as (heads, batch n, any) if all rows share the learned keys, else as it is.

    Then every head's queries meet its keys in one product. Nothing is copied where n lies before heads in memory, as in
    what comes out of a projection and of torch's kernel.
    """
    return one.transpose(0, 1).flatten(1, 2) if shared else one


def _unfolded(one: Tensor, batch: int, *, shared: bool) -> Tensor:
    """Undo [_folded][]."""
    if not shared:
        return one
    heads, rows, size = one.shape
    return one.reshape(heads, batch, rows // batch, size).transpose(0, 1)


def _logits(query: Tensor, learned_key: Tensor, scaling: float, room: int = 0) -> Tensor:
    """Return ``s q P_kᵀ`` (..., n, l + room) of folded ones, in float32 at the least; what is in the room is open."""
    exact, keys = torch.promote_types(query.dtype, torch.float32), learned_key.shape[-2]
    key = (learned_key.to(exact) * scaling).transpose(-1, -2)
    found = query.new_empty((*query.shape[:-1], keys + room), dtype=exact)
    if query.dim() == 3:
        torch.bmm(query.to(exact), key, out=found[..., :keys])
    else:
        found[..., :keys] = query.to(exact) @ key
    return found


def _compute(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    learned_key: Tensor,
    learned_value: Tensor,
    addends: Tensor | None,
    causal: bool,
    scaling: float,
) -> tuple[Tensor, Tensor]:
    """Return the result (batch, heads, n, size) and the logits of the learned keys beside the own keys' denominator.

    The latter is (..., n, l + 1), folded: its softmax is what each learned key weighs, and all of the own keys.
    """
    batch, keys = query.shape[0], learned_key.shape[2]
    shared = learned_key.shape[0] == 1
    h, own = _forward(query, key, value, 0.0, causal, attn_mask=addends, scale=scaling)
    if shared:
        learned_key, learned_value = learned_key[0], learned_value[0]
    logits = _logits(_folded(query, shared=shared), learned_key, scaling, room=1)
    logits[..., keys] = _folded(own[..., None], shared=shared)[..., 0]
    weights = torch.softmax(logits, dim=-1).to(query.dtype)
    joined = _folded(h, shared=shared).mul_(weights[..., keys:])
    if shared:
        joined.baddbmm_(weights[..., :keys], learned_value)
    else:
        joined.add_(weights[..., :keys] @ learned_value)
    return _unfolded(joined, batch, shared=shared), logits


def _of_one(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    learned_key: Tensor,
    learned_value: Tensor,
    addends: Tensor | None,
    causal: bool,
    scaling: float,
) -> Tensor:
    """Return the result for one query of a sequence: the number of operations counts, and the kernel needs the fewest.

    All rows' queries are one sequence of the learned keys' attention, and the gate is a sigmoid of two denominators.
    """
    batch = query.shape[0]
    h, own = _forward(query, key, value, 0.0, causal, attn_mask=addends, scale=scaling)
    rows = _folded(query, shared=True)[None]
    change, learned = _forward(rows, learned_key, learned_value, 0.0, False, scale=scaling)
    gate = torch.sigmoid(learned.reshape(own.shape[1], batch, -1).transpose(0, 1) - own)
    joined: Tensor = h.lerp_(_unfolded(change[0], batch, shared=True), gate[..., None].to(h.dtype))
    return joined


class _Gated(torch.autograd.Function):
    """Its backward is that of the one softmax: the kernel's, given the whole result and the whole denominator."""

    @staticmethod
    def forward(ctx: Any, *everything: Any) -> Tensor:
        """Compute; see [gated][]."""
        *tensors, causal, scaling = everything
        result, logits = _compute(*everything)
        ctx.save_for_backward(*tensors, result, torch.logsumexp(logits, dim=-1))
        ctx.causal, ctx.scaling = causal, scaling
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of query, key, value, learned keys and learned values."""
        with torch.autocast(gradient.device.type, enabled=False):
            return _Gated._slopes(ctx, gradient)

    @staticmethod
    def _slopes(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, learned_key, learned_value, addends, result, total = ctx.saved_tensors
        scaling, batch, shared = ctx.scaling, query.shape[0], learned_key.shape[0] == 1
        if shared:
            learned_key, learned_value = learned_key[0], learned_value[0]
        q, g = _folded(query, shared=shared), _folded(gradient, shared=shared)
        inner = (g * _folded(result, shared=shared)).sum(dim=-1, keepdim=True, dtype=total.dtype)
        weights = torch.exp_(_logits(q, learned_key, scaling).sub_(total[..., None]))
        slope = (g @ learned_value.transpose(-1, -2)).to(total.dtype).sub_(inner).mul_(weights).mul_(scaling)
        slope, weights = slope.to(query.dtype), weights.to(query.dtype)
        found: list[Tensor | None] = [None] * 3
        if any(ctx.needs_input_grad[:3]):
            whole = _unfolded(total[..., None], batch, shared=shared)[..., 0]
            slopes = _backward(
                gradient, query, key, value, result, whole, 0.0, ctx.causal, attn_mask=addends, scale=scaling
            )
            found = [slopes[0] + _unfolded(slope @ learned_key, batch, shared=shared), *slopes[1:]]
        learned = [slope.transpose(-1, -2) @ q, weights.transpose(-1, -2) @ g]
        if shared:
            learned = [one[None] for one in learned]
        return (*found, *learned, None, None, None)
