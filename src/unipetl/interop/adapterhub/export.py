"""Attachments in AdapterHub's format: the config and the tensors of every member.

What is written is read back with our own reader before it counts, so a folder that would mean another function, or
more places than the attachment has, is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from unipetl.attaching.state import Record
from unipetl.composition import Add, Gate
from unipetl.errors import InteropError
from unipetl.forms import Bottleneck, HeadAttention, LowRank, Prompt, Rescale
from unipetl.forms.bottleneck import BottleneckDelta
from unipetl.forms.head_attention import HeadAttentionDelta
from unipetl.forms.low_rank import LowRankDelta
from unipetl.forms.rescale import RescaleDelta
from unipetl.insertion import Parallel, Sequential
from unipetl.interop.adapterhub.bottleneck import ACTIVATIONS
from unipetl.interop.adapterhub.layout import ATTENTION, CROSS, FEED_FORWARD, Holder, Layout
from unipetl.interop.adapterhub.prefix import PARTS
from unipetl.interop.adapterhub.settings import BOTTLENECK, LORA, PREFIX
from unipetl.planning import Placement

Config = dict[str, Any]
Tensors = dict[str, Tensor]
KEPT = "unipetl.save keeps every method."


def members(record: Record, layout: Layout, name: str, *, ignore_dropout: bool) -> tuple[list[Config], Tensors]:
    """Return the configs whose union an attachment is, and its tensors under the library's names.

    Raises:
        InteropError: the format cannot say it; the message says what, and why.
    """
    bottlenecks: list[Placement] = []
    loras: list[Placement] = []
    prefixes: list[Placement] = []
    for one in record.plan.placements:
        form = one.modification.form
        if isinstance(form, Bottleneck):
            bottlenecks.append(one)
        elif isinstance(form, (LowRank, Rescale)):
            loras.append(one)
        elif isinstance(form, HeadAttention):
            prefixes.append(one)
        elif isinstance(form, Prompt):
            raise InteropError(f"{one.key!r}: AdapterHub's prompts stand behind the embeddings' norm. {KEPT}")
        else:
            raise InteropError(f"{one.key!r}: AdapterHub has no {form.tag!r}. {KEPT}")
    configs: list[Config] = []
    tensors: Tensors = {}
    for write, chosen in ((_prefix, prefixes), (_bottlenecks, bottlenecks), (_lora, loras)):
        if chosen:
            found, values = write(record, chosen, layout, name, ignore_dropout)
            configs += found
            tensors |= values
    if not configs:
        raise InteropError("AdapterHub has no format for a method that only trains the model's own parameters.")
    return configs, {layout.prefixed(key): value for key, value in tensors.items()}


def _bottlenecks(
    record: Record, chosen: Sequence[Placement], layout: Layout, name: str, ignore_dropout: bool
) -> tuple[list[Config], Tensors]:
    kinds: dict[str, dict[int, tuple[Config, int]]] = {}
    tensors: Tensors = {}
    for one in chosen:
        holder = _holder(one, layout)
        config = _bottleneck_config(one, layout, ignore_dropout=ignore_dropout)
        form = one.modification.form
        assert isinstance(form, Bottleneck)
        here = kinds.setdefault(holder.location, {})
        if holder.layer in here:
            raise InteropError(f"{one.key!r}: AdapterHub has one bottleneck at a place; here are several. {KEPT}")
        here[holder.layer] = (config, form.rank)
        tensors |= _bottleneck_tensors(record, one, f"{holder.path}.adapters.{name}")
    configs: list[Config] = []
    for location, layers in kinds.items():
        first = next(iter(layers.values()))[0]
        if any(config != first for config, _ in layers.values()):
            raise InteropError(f"AdapterHub has one kind of bottleneck at {location!r} in all layers. {KEPT}")
        every = {holder.layer for holder in layout.holders if holder.location == location}
        config = {
            **first,
            location: True,
            "reduction_factor": _factors(layout.width, {layer: rank for layer, (_, rank) in layers.items()}),
            "leave_out": sorted(every - set(layers)),
        }
        same = next((one for one in configs if _but_place(one) == _but_place(config)), None)
        if same is None:
            configs.append(config)
        else:
            same[location] = True
    _refuse_conflict(configs)
    return configs, tensors


def _but_place(config: Config) -> Config:
    return {key: value for key, value in config.items() if key not in (ATTENTION, FEED_FORWARD, CROSS)}


def _refuse_conflict(configs: Sequence[Config]) -> None:
    """Refuse a union that the library refuses: two bottlenecks must differ in both of their main places."""
    for place, one in enumerate(configs):
        for other in configs[:place]:
            apart = one[ATTENTION] != other[ATTENTION] and one[FEED_FORWARD] != other[FEED_FORWARD]
            if not apart and not one["leave_out"] and not other["leave_out"]:
                raise InteropError(f"AdapterHub's unions do not hold two such bottlenecks. {KEPT}")


def _holder(one: Placement, layout: Layout) -> Holder:
    site = one.site
    location = FEED_FORWARD
    if site.representation == "attention":
        location = CROSS if site.kind == "cross" else ATTENTION
    elif site.representation not in ("ffn", "ffn.residual", "block"):
        raise InteropError(
            f"{one.key!r}: AdapterHub's bottlenecks change the results of the attention and of the FFN, and not "
            f"{site.representation!r}. {KEPT}"
        )
    for holder in layout.holders:
        if (holder.location, holder.stack, holder.stack_layer) == (location, site.stack.stack, site.layer):
            return holder
    raise InteropError(f"{one.key!r}: AdapterHub has no bottleneck there.")


def _bottleneck_config(one: Placement, layout: Layout, *, ignore_dropout: bool) -> Config:
    form, insertion, composition = one.modification.form, one.modification.insertion, one.modification.composition
    assert isinstance(form, Bottleneck)
    assert isinstance(composition, Add)
    if form.gated:
        raise InteropError(f"{one.key!r}: AdapterHub's bottlenecks are not gated. {KEPT}")
    if form.dropout and not ignore_dropout:
        raise InteropError(
            f"{one.key!r}: dropout {form.dropout:g} acts behind the activation here, and behind the scale in "
            "AdapterHub. Pass ignore_dropout=True for the same function without it."
        )
    scale = composition.scale
    if form.layer_norm == "out":
        if scale != 1.0:
            raise InteropError(f"{one.key!r}: AdapterHub has no scale behind a norm. {KEPT}")
        scale = form.inner_scale
    activation = next(theirs for theirs, ours in ACTIVATIONS.items() if ours == form.activation)
    parallel = isinstance(insertion, Parallel)
    return {
        **BOTTLENECK, ATTENTION: False, FEED_FORWARD: False, CROSS: False, "is_parallel": parallel,
        "non_linearity": activation, "scaling": scale, "ln_before": form.layer_norm == "in",
        "ln_after": form.layer_norm == "out", "init_weights": "mam_adapter" if form.init == "lora" else "bert",
        **_order(one, layout),
    }  # fmt: skip


def _order(one: Placement, layout: Layout) -> Config:
    """Return where the library puts the model's residual and norm, for this change to be where it is here."""
    insertion, where, norm_first = one.modification.insertion, one.site.representation, one.site.stack.norm_first
    if isinstance(insertion, Parallel):
        if norm_first and insertion.reads != "residual":
            raise InteropError(
                f"{one.key!r}: AdapterHub's parallel bottleneck reads the residual stream before the norm "
                f"(parallel with reads='residual'), and this one reads behind it. {KEPT}"
            )
        if where in ("attention", "ffn"):
            return {}
    elif isinstance(insertion, Sequential) and where in ("attention", "ffn"):
        return {}
    elif isinstance(insertion, Sequential) and where == "ffn.residual":
        if insertion.reads == ("itself" if norm_first else "normed"):
            return {"original_ln_before": True}
        raise InteropError(f"{one.key!r}: in post-norm models AdapterHub's reads behind the norm (reads='normed').")
    elif where == "block" and not layout.family.hooked:
        return {"original_ln_before": True, "original_ln_after": False, "residual_before_ln": False}
    raise InteropError(f"{one.key!r}: AdapterHub has no such bottleneck at {where!r}. {KEPT}")


def _bottleneck_tensors(record: Record, one: Placement, path: str) -> Tensors:
    change = record.changes[one.key]
    delta = change.delta
    assert isinstance(delta, BottleneckDelta)
    norm = delta.form.layer_norm
    linear = 1 if norm == "in" else 0
    zeros = delta.down.new_zeros
    found = {
        f"{path}.adapter_down.{linear}.weight": delta.down,
        f"{path}.adapter_down.{linear}.bias": zeros(delta.down.shape[0])
        if delta.down_bias is None
        else delta.down_bias,
        f"{path}.adapter_up.weight": delta.up,
        f"{path}.adapter_up.bias": zeros(delta.up.shape[0]) if delta.up_bias is None else delta.up_bias,
    }
    if delta.layer_norm is not None:
        names = ("adapter_norm_before", "adapter_down.0") if norm == "in" else ("adapter_norm_after",)
        for holder in names:
            found[f"{path}.{holder}.weight"] = delta.layer_norm.weight
            found[f"{path}.{holder}.bias"] = delta.layer_norm.bias
    scale = delta.inner_scale if norm == "out" else change.scale
    if scale is not None:
        found[f"{path}.scaling"] = scale
    return found


def _factors(width: int, ranks: dict[int, int]) -> float | dict[str, float]:
    factors = {layer: _factor(width, rank) for layer, rank in sorted(ranks.items())}
    usual = max(dict.fromkeys(factors.values()), key=list(factors.values()).count)
    if len(set(factors.values())) == 1:
        return usual
    return {"default": usual, **{str(layer): one for layer, one in factors.items() if one != usual}}


def _factor(width: int, rank: int) -> float:
    """Return a divisor of ``width`` that gives ``rank``: the library keeps a bottleneck's size as one."""
    for factor in (width / rank, width / (rank + 0.5)):
        if int(width // factor) == rank:
            return int(factor) if factor == int(factor) else factor
    raise InteropError(f"no reduction_factor of {width} features gives a bottleneck of {rank}.")


def _lora(
    record: Record, chosen: Sequence[Placement], layout: Layout, name: str, ignore_dropout: bool
) -> tuple[list[Config], Tensors]:
    del ignore_dropout  # a LoRA's dropout is where the library has it
    forms = {one.modification.form for one in chosen}
    first = chosen[0].modification.form
    if len({type(form) for form in forms}) > 1:
        raise InteropError(f"AdapterHub's unions do not hold LoRA and (IA)^3 together. {KEPT}")
    if len({(form.rank, form.dropout) for form in forms if isinstance(form, LowRank)}) > 1:
        raise InteropError(f"AdapterHub's LoRA has one rank and one dropout in all places. {KEPT}")
    by_site = {one.site.name: one for one in chosen}
    if len(by_site) != len(chosen):
        raise InteropError(f"AdapterHub has one LoRA at a place; here are several. {KEPT}")
    config = {**LORA, "selfattn_lora": False, "attn_matrices": []}
    layers = set()
    for one in chosen:
        location = layout.lora_location(one.site)
        if location is None or (isinstance(first, LowRank) and not isinstance(one.modification.insertion, Parallel)):
            raise InteropError(f"{one.key!r}: AdapterHub has no such change of {one.site.representation!r}. {KEPT}")
        config[location[0]] = True
        if location[1] is not None and location[1] not in config["attn_matrices"]:
            config["attn_matrices"].append(location[1])
        layers.add(layout.layer(one.site))
    config["attn_matrices"] = [letter for letter in "qkvo" if letter in config["attn_matrices"]]
    config["leave_out"] = sorted(set(range(sum(layout.depths.values()))) - layers)
    scale, inner = _scale(chosen)
    if isinstance(first, LowRank):
        config |= {"r": first.rank, "alpha": scale, "dropout": first.dropout, "init_weights": first.init}
    else:
        config |= {"r": 1, "alpha": 1, "composition_mode": "scale", "init_weights": "ia3"}
    tensors: Tensors = {}
    for path, sites in layout.projections().items():
        here = [by_site[site.name] for site in sites if site.name in by_site]
        downs, ups = [], []
        for one in here:
            change = record.changes[one.key]
            if isinstance(change.delta, RescaleDelta):
                ups.append(change.delta.factor.detach()[:, None])
            else:
                assert isinstance(change.delta, LowRankDelta)
                factor = (_own_scale(one) if change.scale is None else change.scale.detach()) if inner else 1.0
                downs.append(change.delta.down.detach())
                ups.append(change.delta.up.detach() * factor if inner else change.delta.up.detach())
        if ups:
            tensors[f"{path}.loras.{name}.lora_B"] = torch.cat(ups)
        if downs:
            tensors[f"{path}.loras.{name}.lora_A"] = torch.cat(downs)
    return [config], tensors


def _scale(chosen: Sequence[Placement]) -> tuple[float, bool]:
    """Return alpha, and whether the places' own scales must go into B because one alpha does not say them."""
    form = chosen[0].modification.form
    rank = form.rank if isinstance(form, LowRank) else 1
    scales = {_own_scale(one) for one in chosen}
    only = next(iter(scales))
    alpha = only * rank if isinstance(only, float) else float(rank)
    if len(scales) > 1 or not isinstance(only, float) or alpha / rank != only:
        return rank, True
    return (int(alpha) if alpha == int(alpha) else alpha), False


def _own_scale(one: Placement) -> Any:
    return getattr(one.modification.composition, "scale", 1.0)


def _prefix(
    record: Record, chosen: Sequence[Placement], layout: Layout, name: str, ignore_dropout: bool
) -> tuple[list[Config], Tensors]:
    del ignore_dropout  # a prefix's dropout is where the library has it
    by_site = {one.site.name: one for one in chosen}
    forms = {one.modification.form.model_copy(update={"init": "bert"}) for one in chosen}
    form = next(iter(forms))
    assert isinstance(form, HeadAttention)
    plain = form.activation == "softmax" and form.layer_norm == "none"
    gated = all(isinstance(one.modification.composition, Gate) for one in chosen)
    if len(forms) > 1 or len(by_site) != len(chosen) or not plain or not gated:
        raise InteropError(
            "AdapterHub has one kind of prefix for all its places, and it shares the attention's softmax; "
            f"{chosen[0].key!r} and the others are not that. {KEPT}"
        )
    mlp = form.reparametrization
    sets = {key: [s for s in sites if s.name in by_site] for key, sites in layout.prefix_sets().items()}
    layers = {layout.layer(site) for sites in sets.values() for site in sites}
    config = {
        **PREFIX, "flat": mlp is None, "prefix_length": form.length, "dropout": form.dropout,
        "encoder_prefix": bool(sets.get("encoder_prefix", True)), "cross_prefix": bool(sets.get("cross_prefix", True)),
    }  # fmt: skip
    if mlp is not None:
        config["bottleneck_size"] = mlp.width
    used = {layout.layer(site) for key, sites in layout.prefix_sets().items() if sets[key] for site in sites}
    config["leave_out"] = sorted(used - layers)
    tensors: Tensors = {}
    for key, sites in sets.items():
        if not sites:
            continue
        path = f"prefix_tuning.prefix_tunings.{name}.{key}"
        groups = {by_site[site.name].group for site in sites}
        if mlp is None:
            rows = []
            for site in sites:
                delta = record.changes[by_site[site.name].key].delta
                assert isinstance(delta, HeadAttentionDelta)
                assert delta.key is not None
                assert delta.value is not None
                rows += [delta.key.detach(), delta.value.detach()]
            tensors[f"{path}.control_trans"] = torch.cat(rows, dim=1).flatten()
            continue
        group = next(iter(groups))
        if len(groups) > 1 or group is None:
            raise InteropError(f"AdapterHub's prefix {key!r} has one MLP for all its layers; here are several. {KEPT}")
        values = dict(record.shared[group].named_parameters())
        tensors |= {f"{path}.{theirs}": values[ours] for theirs, ours in PARTS.items()}
    return [config], tensors
