"""The names and shapes that the released code's state dict has for every tensor of a plan.

Names are relative to the base model (``encoder.layers.0...``), without the ``pretrained_model.`` and
``model.`` or ``roberta.`` in front; prefixes keep their ``prompt_model.``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from unipetl.architectures import Site
from unipetl.attaching.ports import Change
from unipetl.forms import Bottleneck, HeadAttention, LowRank
from unipetl.insertion import Parallel
from unipetl.interop.official_options import Family, Options, acts
from unipetl.planning import Group, Placement, Plan

BASES = ("model.", "roberta.")
WRAPPER = "pretrained_model."

_BOTTLENECK = {
    "down": "down_proj.weight", "down_bias": "down_proj.bias", "up": "up_proj.weight", "up_bias": "up_proj.bias",
    "layer_norm.weight": "adapter_layer_norm_before.weight", "layer_norm.bias": "adapter_layer_norm_before.bias",
    "scale": "scale", "inner_scale": "scale",
}  # fmt: skip
_SHARED = {"embedding": "wte{}.weight", "hidden": "control_trans{}.0.weight", "hidden_bias": "control_trans{}.0.bias",
           "out": "control_trans{}.2.weight", "out_bias": "control_trans{}.2.bias"}  # fmt: skip
#: Stack and kind of an attention -> its prefix without and with the MLP.
_PLACES = {
    ("encoder", "self"): ("encoder_attn", "_enc"),
    ("decoder", "self"): ("decoder_self_attn", ""),
    ("decoder", "cross"): ("decoder_cross_attn", "2"),
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor: its name in [Attachment.tensors][] and in the released code.

    Attributes:
        ours: the name here.
        official: the name there.
        shape: its shape there.
        rows: how many of its leading rows are used here; fewer than all for a prefix MLP in front of a
            decoder with fewer layers than the encoder.
    """

    ours: str
    official: str
    shape: tuple[int, ...]
    rows: int


def bare_name(name: str) -> str:
    """Return an official or a model's parameter name relative to the base model."""
    name = name.removeprefix(WRAPPER)
    for base in BASES:
        if name.startswith(base):
            return name.removeprefix(base)
    return name


def full_name(name: str, family: Family) -> str:
    """Return a bare name as the released code writes it, for messages."""
    if name.startswith("prompt_model."):
        return name
    inside = name.startswith(("encoder.", "decoder.", "shared.", "embeddings.", "pooler."))
    base = ("roberta." if family == "roberta" else "model.") if inside else ""
    return f"{WRAPPER}{base}{name}"


def entries(plan: Plan, family: Family, depth: int) -> list[Entry]:
    """Return every tensor of ``plan`` but those of the model itself; ``depth`` is the encoder's number of layers."""
    found: list[Entry] = []
    with torch.device("meta"):
        built = {group.key: group.form.build_shared(group.shapes) for group in plan.groups}
        for group in plan.groups:
            shared = built[group.key]
            assert shared is not None
            found += _shared_entries(plan, group, shared, family, depth)
        for one in plan.placements:
            change = Change(
                one.modification,
                one.modification.form.build(one.shape, built[one.group] if one.group else None, one.index),
            )
            for name, parameter in change.named_parameters():
                ours = name.removeprefix("delta.")
                shape = tuple(parameter.shape)
                found.append(Entry(f"{one.key}/{ours}", official_name(one, ours, family), shape, shape[0]))
    return found


def _shared_entries(plan: Plan, group: Group, shared: nn.Module, family: Family, depth: int) -> Iterator[Entry]:
    site = next(one.site for one in plan.placements if one.group == group.key)
    _, suffix = _place(site, family)
    for name, parameter in shared.named_parameters():
        shape = tuple(parameter.shape)
        whole = shape
        if name in ("out", "out_bias"):  # the released MLP has rows for as many layers as the encoder has
            whole = (shape[0] // len(group.shapes) * depth, *shape[1:])
        yield Entry(f"shared/{group.key}/{name}", f"prompt_model.{_SHARED[name].format(suffix)}", whole, shape[0])


def official_name(one: Placement, name: str, family: Family) -> str:
    """Return the released code's name for the parameter ``name`` of a placement."""
    form, site = one.modification.form, one.site
    owner = bare_name(site.owner)
    outer = owner.rpartition(".")[0]
    if isinstance(form, LowRank):
        return f"{owner}.ef_lora_{'A' if name == 'down' else 'B'}"
    if isinstance(form, HeadAttention):
        if name in ("key", "value"):
            return f"prompt_model.{_place(site, family)[0]}_{name}.{site.layer}.weight"
        return f"{owner}.ef_transform_{name}"
    if isinstance(form, Bottleneck):
        return f"{_adapter_path(one, owner, outer, family)}.{_BOTTLENECK[name]}"
    return f"{owner}.ef_prefix_emb.weight"


def _adapter_path(one: Placement, owner: str, outer: str, family: Family) -> str:
    if one.site.representation == "attention.heads":
        return f"{owner}.ef_attn_adapter"
    if one.site.representation == "attention":
        return f"{outer}.ef_attn_adapter"
    if one.site.representation == "ffn.residual":  # its owner is the layer itself
        return f"{owner}.output.ef_ffn_adapter" if family == "roberta" else f"{owner}.ef_ffn_adapter"
    if family == "roberta" and isinstance(one.modification.insertion, Parallel):
        return f"{outer.rpartition('.')[0]}.ef_ffn_adapter"
    return f"{outer}.ef_ffn_adapter"


def _place(site: Site, family: Family) -> tuple[str, str]:
    if family == "roberta":  # RoBERTa reads what is the decoder's elsewhere
        return _PLACES["decoder", "self"]
    assert site.kind is not None
    return _PLACES[site.stack.stack, site.kind]


def unused(options: Options, family: Family, depth: int, decoder_depth: int) -> list[re.Pattern[str]]:
    """Return patterns of the parameters that the released code builds with these options and never reads.

    ``depth`` is the encoder's number of layers, which is the number of prefixes whatever the decoder's is.
    """
    found = []
    if options.attn_mode in ("prefix", "prefix_nomlp"):
        if not acts(options, family):
            found.append(r"prompt_model\..*")
        if family == "roberta":
            found.append(r"prompt_model\.(encoder_attn|decoder_cross_attn)_(key|value)\.\d+\.weight")
            found.append(r"prompt_model\.(wte|control_trans)(_enc|2)\..*")
        else:
            found += [
                rf"prompt_model\.decoder_(self|cross)_attn_(key|value)\.{layer}\.weight"
                for layer in range(decoder_depth, depth)
            ]
        if options.attn_option == "cross_attn_relu" and family != "bart":
            found.append(r".*\.ef_transform_layer_norm\.(weight|bias)")
    if options.attn_mode == "adapter" and not acts(options, family):
        found.append(r".*\.ef_attn_adapter\..*")
    if family == "roberta" and options.ffn_mode == "adapter" and options.ffn_option == "parallel":
        found.append(r"encoder\.layer\.\d+\.output\.ef_ffn_adapter\..*")
    return [re.compile(pattern) for pattern in found]
