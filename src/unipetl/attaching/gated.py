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
SMALL = 1 << 17

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
        result = _joined(packed, key, value, *learned, mask, causal, scaling)
        return result.reshape(query.shape).transpose(1, 2)
    if groups > 1:
        key, value = (one.repeat_interleave(groups, dim=1) for one in (key, value))
        learned = (learned[0].repeat_interleave(groups, dim=1), learned[1].repeat_interleave(groups, dim=1))
    return _joined(query, key, value, *learned, mask, causal, scaling).transpose(1, 2)


def _joined(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    learned_key: Tensor,
    learned_value: Tensor,
    mask: Tensor | None,
    causal: bool,
    scaling: float,
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
        return _compute(*everything)[0]


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


def _logits(query: Tensor, learned_key: Tensor, scaling: float) -> Tensor:
    """Return ``s q P_kᵀ`` (batch, heads, n, l), in float32 at the least."""
    exact = torch.promote_types(query.dtype, torch.float32)
    return (query.to(exact) * scaling) @ learned_key.to(exact).transpose(-1, -2)


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
    """Return the result (batch, heads, n, size) and the logarithm of the whole denominator (batch, heads, n)."""
    h, own = _forward(query, key, value, 0.0, causal, attn_mask=addends, scale=scaling)
    logits = _logits(query, learned_key, scaling)
    total = torch.logaddexp(own.to(logits.dtype), torch.logsumexp(logits, dim=-1))
    weights = torch.exp_(logits.sub_(total[..., None])).to(query.dtype)
    rest = torch.exp(own - total)[..., None].to(query.dtype)
    return torch.addcmul(weights @ learned_value, h, rest), total.to(own.dtype)


class _Gated(torch.autograd.Function):
    """Its backward is that of the one softmax: the kernel's, given the whole result and the whole denominator."""

    @staticmethod
    def forward(ctx: Any, *everything: Any) -> Tensor:
        """Compute; see [gated][]."""
        *tensors, causal, scaling = everything
        result, total = _compute(*everything)
        ctx.save_for_backward(*tensors, result, total)
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
        scaling, exact = ctx.scaling, total.dtype
        weights = torch.exp_(_logits(query, learned_key, scaling).sub_(total[..., None]))
        inner = (gradient * result).sum(dim=-1, keepdim=True, dtype=exact)
        slope = (gradient @ learned_value.transpose(-1, -2)).to(exact).sub_(inner).mul_(weights).mul_(scaling)
        slope, weights = slope.to(query.dtype), weights.to(query.dtype)
        found: list[Tensor | None] = [None] * 3
        if any(ctx.needs_input_grad[:3]):
            found = list(
                _backward(gradient, query, key, value, result, total, 0.0, ctx.causal, attn_mask=addends, scale=scaling)
            )
            assert found[0] is not None
            found[0] = found[0] + slope @ learned_key
        own_key, own_value = slope.transpose(-1, -2) @ query, weights.transpose(-1, -2) @ gradient
        learned = (_summed(own_key, learned_key), _summed(own_value, learned_value))
        return (*found, *learned, None, None, None)


def _summed(gradient: Tensor, like: Tensor) -> Tensor:
    """Return a gradient (batch, ...), summed over the batch where ``like`` serves all of it."""
    return gradient if gradient.shape[0] == like.shape[0] else gradient.sum(dim=0, keepdim=True)
