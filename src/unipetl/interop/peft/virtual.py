r"""Prefix and prompt tuning folders: one tensor, ``prompt_embeddings``.

A prefix is (l, layers * 2 * width): of each layer its keys, then its values, per key head. PEFT gives it to the model
as a cache, so that every token's position grows by l, and only a decoder's self-attention (or an encoder without a
decoder) can have one. Ours moves no position. With rotary positions the two are the same function after the keys
are turned by l positions, :math:`(R_{p+l} q) \cdot k = (R_p q) \cdot (R_l^\top k)`. With other positions they are the
same only if ours is called with positions that begin at l; see ``shift_positions``.

A prompt is (l, width), or twice that for an encoder-decoder model, whose second half PEFT does not use.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unipetl.architectures import Site
from unipetl.attaching.state import Record
from unipetl.composition import Gate
from unipetl.errors import InteropError
from unipetl.forms import HeadAttention, Heads, Prompt
from unipetl.forms.head_attention import HeadAttentionDelta
from unipetl.forms.prompt import PromptDelta
from unipetl.insertion import Parallel
from unipetl.interop.peft.files import Folder
from unipetl.interop.peft.names import Places, task_of
from unipetl.interop.wanted import Wanted, modifications_of
from unipetl.method import Modification

KEY = "prompt_embeddings"


def read_prefix(folder: Folder, places: Places, *, shift_positions: bool) -> Wanted:
    """Return what a prefix tuning folder describes.

    Raises:
        InteropError: it does not fit the model, or the model's positions cannot be made PEFT's.
    """
    values, rest = _embeddings(folder)
    sites = _prefixed(places)
    heads = _heads(sites)
    length, width = folder.setting("num_virtual_tokens", int, 0), heads.key_heads * heads.key_dim
    if tuple(values.shape) != (length, len(sites) * 2 * width):
        raise InteropError(
            f"{KEY!r} has shape {tuple(values.shape)}; {len(sites)} layers of {heads.key_heads} heads of size "
            f"{heads.key_dim} need ({length}, {len(sites) * 2 * width})."
        )
    _refuse_positions(places, sites, "prefix", shift_positions=shift_positions)
    layers = values.view(length, len(sites), 2, width)
    found: dict[str, dict[str, Tensor]] = {}
    for index, site in enumerate(sites):
        key = _turned(places.model, site, layers[:, index, 0], -length)
        found[site.name] = {"key": key, "value": layers[:, index, 1]}

    def build(representation: dict[str, Any], _: object) -> Modification:
        return Modification(
            representation=representation, form=HeadAttention(length=length), insertion=Parallel(), composition=Gate()
        )

    return Wanted(modifications_of(places.sites, dict.fromkeys(found, True), build), found, rest)


def write_prefix(record: Record, places: Places, *, shift_positions: bool) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return config and tensors of an attachment's prefix; a reparametrisation is computed.

    Raises:
        InteropError: the format cannot say it: an encoder's or cross attention's prefix of an encoder-decoder
            model, some layers only, an ungated one, or positions that are not PEFT's.
    """
    sites = _prefixed(places)
    by_site = {one.site.name: one for one in record.plan.placements}
    extra = [one.key for name, one in by_site.items() if name not in {site.name for site in sites}]
    missing = [site.name for site in sites if site.name not in by_site]
    if extra or missing or len(by_site) != len(record.plan.placements):
        what = f"{extra[0]!r} is another" if extra else f"{missing[0]!r} has none" if missing else "some place has two"
        raise InteropError(
            "PEFT's prefix is one of every layer of a decoder's self-attention, or of an encoder that stands alone: "
            f"{what}. unipetl.save keeps every prefix."
        )
    _refuse_positions(places, sites, "prefix", shift_positions=shift_positions)
    parts: list[Tensor] = []
    length = 0
    for site in sites:
        one = by_site[site.name]
        form, delta = one.modification.form, record.changes[one.key].delta
        plain = isinstance(form, HeadAttention) and form.activation == "softmax" and form.layer_norm == "none"
        if not plain or not isinstance(one.modification.composition, Gate):
            raise InteropError(f"{one.key!r}: PEFT's prefix shares the attention's softmax; this change does not.")
        assert isinstance(delta, HeadAttentionDelta)
        assert isinstance(form, HeadAttention)
        length = form.length
        parts += [_turned(places.model, site, _direct(delta)[0], length), _direct(delta)[1]]
    heads = _heads(sites)
    both = task_of(places.model) == "SEQ_2_SEQ_LM"
    width = heads.key_heads * heads.key_dim
    config: dict[str, Any] = {
        "peft_type": "PREFIX_TUNING", "num_virtual_tokens": length, "token_dim": width,
        "num_layers": len(sites), "num_attention_heads": heads.key_heads, "encoder_hidden_size": width,
        "num_transformer_submodules": 2 if both else 1, "prefix_projection": False,
    }  # fmt: skip
    return config, {KEY: torch.cat(parts, dim=1)}


def read_prompt(folder: Folder, places: Places) -> Wanted:
    """Return what a prompt tuning folder describes.

    Raises:
        InteropError: it does not fit the model, or PEFT's prompt moves the tokens' absolute positions.
    """
    values, rest = _embeddings(folder)
    site = _prompted(places)
    length = folder.setting("num_virtual_tokens", int, 0)
    width = getattr(site.shape, "width", 0)
    copies = folder.setting("num_transformer_submodules", int, 1)
    if tuple(values.shape) != (length * copies, width):
        raise InteropError(f"{KEY!r} has shape {tuple(values.shape)}; this model needs ({length * copies}, {width}).")
    one = Modification(
        representation={"name": "input"}, form=Prompt(length=length), insertion=Parallel(), composition=Gate()
    )
    return Wanted((one,), {site.name: {"prompt": values[:length]}}, rest)


def write_prompt(record: Record, places: Places) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return config and tensors of an attachment's prompt.

    Raises:
        InteropError: the format cannot say it.
    """
    site = _prompted(places)
    deltas = [record.changes[one.key].delta for one in record.plan.placements]
    if len(deltas) != 1 or not isinstance(deltas[0], PromptDelta):
        raise InteropError("PEFT has one prompt for a model, and nothing beside it. unipetl.save keeps every method.")
    prompt = deltas[0].prompt.detach()
    both = task_of(places.model) == "SEQ_2_SEQ_LM"
    heads = next((one.shape for one in places.sites if isinstance(one.shape, Heads)), None)
    config: dict[str, Any] = {
        "peft_type": "PROMPT_TUNING", "num_virtual_tokens": prompt.shape[0], "token_dim": prompt.shape[1],
        "num_layers": 1 + max(one.layer for one in places.sites if one.stack == site.stack),
        "num_attention_heads": heads.query_heads if heads else 1,
        "num_transformer_submodules": 2 if both else 1, "prompt_tuning_init": "RANDOM",
    }  # fmt: skip
    return config, {KEY: torch.cat([prompt, torch.zeros_like(prompt)]) if both else prompt}


def _embeddings(folder: Folder) -> tuple[Tensor, dict[str, Tensor]]:
    rest = dict(folder.tensors)
    values = rest.pop(KEY, None)
    if values is None:
        raise InteropError(f"{str(folder.path)!r} has no tensor {KEY!r}.")
    return values, rest


def _prefixed(places: Places) -> list[Site]:
    sites = [one for one in places.sites if one.representation == "attention.heads" and one.kind == "self"]
    last = "decoder" if any(one.stack.stack == "decoder" for one in sites) else "encoder"
    return [one for one in sites if one.stack.stack == last]


def _prompted(places: Places) -> Site:
    sites = [one for one in places.sites if one.representation == "input"]
    first = "encoder" if any(one.stack.stack == "encoder" for one in places.sites) else "decoder"
    site = next((one for one in sites if one.stack.stack == first), None)
    if site is None:
        raise InteropError("this model has no place for a prompt.")
    if site.stack.positions or site.stack.prompt_at == "entry":
        raise InteropError(
            f"PEFT's prompt moves every token of a {places.model.config.model_type} by its length, and gives prompt "  # type: ignore[union-attr]
            "vectors positions of their own; unipetl's does neither, so the two are not the same function. It is the "
            "same with rotary and relative positions."
        )
    return site


def _heads(sites: list[Site]) -> Heads:
    shapes = {site.shape for site in sites}
    shape = next(iter(shapes))
    if len(shapes) != 1 or not isinstance(shape, Heads) or shape.key_dim != shape.value_dim:
        raise InteropError("PEFT's prefix has the same heads in every layer, with keys as wide as values.")
    return shape


def _refuse_positions(places: Places, sites: list[Site], what: str, *, shift_positions: bool) -> None:
    stack, config = sites[0].stack, places.model.config
    kind = str(getattr(config, "model_type", "this"))
    if stack.rotary:
        window = getattr(config, "sliding_window", None)
        if window is not None and getattr(config, "use_sliding_window", True):
            raise InteropError(f"PEFT's {what} falls out of {kind}'s sliding window, and unipetl's does not.")
        return
    if not stack.positions and stack.prompt_at == "tokens":
        raise InteropError(
            f"PEFT's {what} has relative positions in a {kind}, and unipetl's has none: they are not the same function."
        )
    if not _takes_positions(places.model):
        raise InteropError(
            f"PEFT's {what} moves every token of a {kind} by its length, and this model takes no position_ids to do "
            "the same; they are not the same function."
        )
    if not shift_positions:
        raise InteropError(
            f"PEFT's {what} moves every token of a {kind} by its length, and unipetl's moves none. Pass "
            "shift_positions=True if whoever calls the model gives position_ids accordingly: here they begin at the "
            "prefix's length, where PEFT's model is used they cannot be given."
        )


def _takes_positions(model: nn.Module) -> bool:
    return "position_ids" in inspect.signature(model.forward).parameters


def _direct(delta: HeadAttentionDelta) -> tuple[Tensor, Tensor]:
    """Return keys and values, each (l, heads * size), computed where an MLP makes them."""
    with torch.no_grad():
        shared = delta._shared[0]
        if shared is not None:
            return shared(delta.index)
    assert delta.key is not None
    assert delta.value is not None
    return delta.key.detach(), delta.value.detach()


@dataclass(frozen=True)
class _Turn:
    """A rotation of keys: ``x cos + rotate_half(x) sin``."""

    cos: Tensor
    sin: Tensor

    def of(self, keys: Tensor) -> Tensor:
        half = keys.shape[-1] // 2
        turned = torch.cat([-keys[..., half:], keys[..., :half]], dim=-1)
        return keys * self.cos + turned * self.sin


def _turned(model: nn.Module, site: Site, keys: Tensor, positions: int) -> Tensor:
    """Return keys (l, heads * size) turned by so many rotary positions; as they are in a model without those."""
    if not site.stack.rotary:
        return keys
    stack: Any = model.get_submodule(site.stack_root) if site.stack_root else model
    rotary = getattr(stack, "rotary_emb", None)
    frequencies = getattr(rotary, "inv_freq", None)
    kind = str(getattr(rotary, "rope_type", "default"))
    if frequencies is None or kind not in ("default", "linear", "llama3"):
        raise InteropError(
            f"the rotary positions of this model ({kind}) are not a fixed turn for each step, so a prefix cannot "
            "be moved."
        )
    heads = site.shape
    assert isinstance(heads, Heads)
    if 2 * frequencies.numel() != heads.key_dim:
        raise InteropError("only a part of each head has rotary positions; a prefix cannot be moved along it.")
    angles = (frequencies.double() * positions).repeat(2).to(keys.device)
    turn = _Turn(angles.cos(), angles.sin())
    split = keys.double().view(keys.shape[0], heads.key_heads, heads.key_dim)
    return turn.of(split).reshape(keys.shape).to(keys.dtype)
