"""Small hooks at the start of a stack: gradients for checkpointing, positions for rotary models, nothing kept."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from unipetl.forms.head_attention import HeadAttentionDelta


@dataclass
class EntryHook:
    """Lets reentrant gradient checkpointing see a gradient.

    It runs the blocks without a graph unless their input requires a gradient; with a frozen embedding
    nothing does, and the changes inside would silently get none.
    """

    block: nn.Module

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """Return the tensor that enters the blocks with a gradient, while checkpointing is on."""
        checkpointing = getattr(self.block, "gradient_checkpointing", False) and self.block.training
        if not checkpointing or not torch.is_grad_enabled() or not isinstance(output, Tensor) or output.requires_grad:
            return None
        return output.detach().requires_grad_(True).clone()  # a copy, as some models add to it in place


@dataclass
class VectorsHook:
    """Does for ``inputs_embeds`` what [EntryHook][] does for tokens: where vectors are given, no embedding runs.

    Attributes:
        block: what is run under checkpoints.
        anything: whether it is done for any first argument (an image), as what enters the blocks does so in ``block``.
    """

    block: nn.Module
    anything: bool = False

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the arguments with vectors that require a gradient, while checkpointing is on."""
        if not getattr(self.block, "gradient_checkpointing", False) or not self.block.training:
            return None
        name = "inputs_embeds"
        if self.anything and not args:
            order = [*inspect.signature(module.forward).parameters, *kwargs]  # a mask may be given first
            name = next((one for one in order if _is_vectors(kwargs.get(one))), name)
        vectors = kwargs.get(name)
        first = vectors is None and bool(args)
        vectors = args[0] if first else vectors
        if not torch.is_grad_enabled() or not _is_vectors(vectors) or vectors.requires_grad:
            return None
        vectors = vectors.detach().requires_grad_(True).clone()
        return ((vectors, *args[1:]), kwargs) if first else (args, {**kwargs, name: vectors})


def _is_vectors(value: Any) -> TypeGuard[Tensor]:
    return isinstance(value, Tensor) and value.is_floating_point()


@dataclass
class BeginHook:
    """Drops what learned keys and values were computed to be, unless the call goes on with a cache of its own.

    One sequence is generated with one set of values; the next one may follow a change that left no trace. With
    gradients every call begins anew.
    """

    deltas: tuple[HeadAttentionDelta, ...]

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Drop it."""
        if torch.compiler.is_compiling():
            return
        length = getattr(kwargs.get("past_key_values"), "get_seq_length", int)()
        if torch.is_grad_enabled() or not isinstance(length, int) or not length:  # a tensor is not waited for
            for delta in self.deltas:
                delta.begin()


@dataclass
class PositionHook:
    """Counts positions from the attention mask, as ``generate`` does, where the caller gives none.

    Rotated queries meet learned keys that carry no position, so a row must have the same positions
    whatever padding stands to its left.

    Attributes:
        names: the stack's arguments, in order.
        rows: for equal shares of the batch, whether its positions are counted so; the others stay as they are.
    """

    names: tuple[str, ...]
    rows: tuple[bool, ...] = ()

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the arguments with ``position_ids`` filled in, or None."""
        kwargs = {**dict(zip(self.names, args, strict=False)), **kwargs}
        mask, tokens = kwargs.get("attention_mask"), kwargs.get("input_ids")
        tokens = kwargs.get("inputs_embeds") if tokens is None else tokens
        if kwargs.get("position_ids") is not None or tokens is None:
            return None
        if not isinstance(mask, Tensor) or mask.dim() != 2:
            return None
        positions = (mask.long().cumsum(-1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
        if not all(self.rows):
            cache = kwargs.get("past_key_values")
            seen = 0 if cache is None else int(cache.get_seq_length())
            counted = torch.tensor(self.rows, device=mask.device).repeat_interleave(len(mask) // len(self.rows))
            plain = torch.arange(seen, seen + tokens.shape[1], device=mask.device)
            positions = torch.where(counted[:, None], positions, plain)
        return (), {**kwargs, "position_ids": positions}
