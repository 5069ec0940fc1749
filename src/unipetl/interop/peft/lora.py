"""LoRA folders. A is (r, in), B (out, r), also for transposed weights; ΔW = s B A with s = alpha / r.

With ``use_rslora`` s = alpha / sqrt(r). A fused projection of the model is one LoRA in the file: going out, the
places' ranks are put side by side; coming in, each place takes its rows of B and the ranks that reach it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unipetl.attaching.state import Record
from unipetl.composition import Add
from unipetl.errors import InteropError
from unipetl.folding.linear import lookup_scale, rows
from unipetl.folding.steps import Op
from unipetl.forms import Bottleneck, LowRank
from unipetl.forms.bottleneck import BottleneckDelta
from unipetl.forms.low_rank import LowRankDelta
from unipetl.insertion import Parallel
from unipetl.interop.peft import experts
from unipetl.interop.peft.files import Folder
from unipetl.interop.peft.names import (
    PREFIX,
    Places,
    features_of,
    matches,
    pattern_value,
    short_names,
)
from unipetl.interop.wanted import Wanted, modifications_of
from unipetl.method import Modification
from unipetl.planning.joints import joint
from unipetl.representation import PROJECTIONS

REFUSED = {
    "use_dora": "a learned norm of every column (DoRA)",
    "use_qalora": "pooled inputs (QA-LoRA)",
    "use_bdlora": "block-diagonal matrices (BD-LoRA)",
    "alora_invocation_tokens": "a LoRA that acts after certain tokens (aLoRA)",
    "layer_replication": "layers that stand there several times",
    "trainable_token_indices": "single rows of the embeddings",
    "kasa_config": "a pruned base (KaSA)",
    "velora_config": "compressed activations (VeLoRA)",
    "monteclora_config": "random weights (MonteCLoRA)",
    "arrow_config": "a router among LoRAs (Arrow)",
}
#: Initialisations after which the base's weights are still those of its checkpoint.
INITS = (True, False, None, "gaussian", "orthogonal", "eva")


@dataclass(frozen=True)
class Spec:
    """What the file wants at one place."""

    rank: int
    scale: float
    dropout: float
    bias: bool


def read(folder: Folder, places: Places) -> Wanted:
    """Return what a LoRA folder describes.

    Raises:
        InteropError: it means something that unipetl does not have, names modules that are no places of ours, or
            a tensor is missing, too many or misshapen.
    """
    folder.refuse_settings(REFUSED)
    if folder.config.get("init_lora_weights", True) not in INITS:
        raise InteropError(
            f"init_lora_weights={folder.config['init_lora_weights']!r} changes the base's own weights; let PEFT "
            "save it as a plain LoRA (path_initial_model_for_weight_conversion)."
        )
    if folder.setting("bias", str, "none") == "lora_only":
        raise InteropError("bias='lora_only' trains the biases of some modules; unipetl trains all biases or none.")
    every, rest = _pairs(folder)
    pairs, of_experts = experts.apart(places, every)
    if pairs or not of_experts or folder.config.get("target_modules"):
        _refuse_incomplete(folder, places, pairs)
    values: dict[str, dict[str, Tensor]] = {}
    specs: dict[str, Spec] = {}
    for path, pair in pairs.items():
        own_path = places.module(path)
        if own_path not in places.results:
            raise InteropError(
                f"LoRA of {path!r}: no representation of the design space; those are the projections of attention "
                "and FFN, and embeddings."
            )
        scale = _scale(folder, path, pair["A"].shape[0])
        bias = pair.get("bias")
        for site, down, up, part in _parts(places, own_path, pair["A"], pair["B"], bias):
            values[site.name] = {"down": down, "up": up, **({} if part is None else {"up_bias": part})}
            module = places.model.get_submodule(own_path)
            if isinstance(module, nn.Embedding):
                _refuse_scaled(module, path)
            lookup = isinstance(module, nn.Embedding)  # PEFT drops nothing there
            dropout = 0.0 if lookup else float(folder.setting("lora_dropout", (int, float), 0.0))
            specs[site.name] = Spec(down.shape[0], scale, dropout, part is not None)
    found = experts.read(folder, places, of_experts, lambda path, rank: _scale(folder, path, rank))
    for name, (value, scale) in found.items():
        values[name], specs[name] = value, Spec(value["each.down"].shape[1], scale, 0.0, bias=False)
    return Wanted(_modifications(places, specs), values, rest)


def _modifications(places: Places, specs: Mapping[str, Spec]) -> tuple[Modification, ...]:
    def build(representation: dict[str, Any], spec: Spec) -> Modification:
        form: LowRank | Bottleneck = (
            Bottleneck(rank=spec.rank, activation="identity")
            if spec.bias
            else LowRank(rank=spec.rank, dropout=spec.dropout)
        )
        return Modification(
            representation=representation, form=form, insertion=Parallel(), composition=Add(scale=spec.scale)
        )

    return modifications_of(places.sites, specs, build)


def _pairs(folder: Folder) -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor]]:
    endings = {
        ".lora_A.weight": "A", ".lora_B.weight": "B", ".lora_B.bias": "bias",
        ".lora_embedding_A": "A", ".lora_embedding_B": "B",
    }  # fmt: skip
    pairs: dict[str, dict[str, Tensor]] = {}
    rest: dict[str, Tensor] = {}
    for key, value in folder.tensors.items():
        ending = next((one for one in endings if key.endswith(one)), None)
        if ending is not None and key.startswith(PREFIX):
            matrix = value.flatten(1) if value.dim() > 2 else value  # of a convolution: one row for each patch
            pairs.setdefault(key.removeprefix(PREFIX).removesuffix(ending), {})[endings[ending]] = matrix
        elif ".lora_" in key:
            raise InteropError(f"tensor {key!r} belongs to a variant of LoRA that unipetl does not have.")
        else:
            rest[key] = value
    for path, pair in pairs.items():
        for part in ("A", "B"):
            if part not in pair:
                raise InteropError(f"the LoRA of {path!r} is incomplete: lora_{part} is missing.")
        if pair["A"].dim() != 2 or pair["B"].dim() != 2 or pair["A"].shape[0] != pair["B"].shape[1]:
            raise InteropError(
                f"the LoRA of {path!r} has shapes {tuple(pair['A'].shape)} and {tuple(pair['B'].shape)}, which are no "
                "(r, in) and (out, r)."
            )
    return pairs, rest


def _refuse_incomplete(folder: Folder, places: Places, pairs: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Compare the modules that have tensors with those that the config names."""
    targets = folder.config.get("target_modules")
    if targets is None or not pairs:
        raise InteropError(f"{str(folder.path)!r} holds no LoRA: no target_modules, or no tensors.")
    if targets == "all-linear":
        return
    excluded = folder.config.get("exclude_modules") or []
    layers = folder.config.get("layers_to_transform")
    wanted = {path for path in places.results if matches(targets, path) and not (excluded and matches(excluded, path))}
    if layers is not None:
        wanted = {path for path in wanted if _layer(path) in ([layers] if isinstance(layers, int) else layers)}
    found = {places.module(path) for path in pairs}
    missing = [] if folder.config.get("layers_pattern") else sorted(wanted - found)
    extra = sorted(path for path in found if not matches(targets, path) and not _renamed(pairs, path))
    if missing or extra:
        where = missing[0] if missing else extra[0]
        what = "has no tensors in the file" if missing else "has tensors, and target_modules does not name it"
        raise InteropError(f"{str(folder.path)!r}: {where!r} {what}; the file does not fit its config or this model.")
    if not pairs:
        raise InteropError(f"{str(folder.path)!r} holds no LoRA.")


def _layer(path: str) -> int | None:
    """Return the first number in a path, which PEFT takes for the layer's."""
    return next((int(part) for part in path.split(".") if part.isdigit()), None)


def _renamed(pairs: Mapping[str, object], path: str) -> bool:
    return path not in pairs  # found under another prefix than this model's: full paths in the config do not fit


def _scale(folder: Folder, path: str, rank: int) -> float:
    expected = pattern_value(folder.setting("rank_pattern", dict, {}), path, folder.setting("r", int, 8))
    if expected != rank:
        raise InteropError(f"the LoRA of {path!r} has rank {rank}, and the config says {expected}.")
    alpha = pattern_value(
        folder.setting("alpha_pattern", dict, {}), path, folder.setting("lora_alpha", (int, float), 8)
    )
    scale = alpha / math.sqrt(rank) if folder.config.get("use_rslora") else alpha / rank
    if not scale:
        raise InteropError(f"the LoRA of {path!r} has alpha 0 and does nothing.")
    return float(scale)


def _parts(
    places: Places, path: str, down: Tensor, up: Tensor, bias: Tensor | None
) -> Iterable[tuple[Any, Tensor, Tensor, Tensor | None]]:
    """Yield, for every place that a projection is, what the LoRA does there."""
    inner, outer = features_of(places.model, path)
    if down.shape[1] != inner or up.shape[0] != outer:
        raise InteropError(
            f"the LoRA of {path!r} maps {down.shape[1]} to {up.shape[0]} features, and the module {inner} to {outer}."
        )
    sites = places.results[path]
    if len(sites) == 1:
        yield sites[0], down, up, bias
        return
    fresh = not bool(up.any())
    covered = torch.zeros(outer, dtype=torch.bool)
    for site in sites:
        chosen = rows(site.value, outer)
        covered[chosen] = True
        mine = up[chosen]
        used = torch.ones(up.shape[1], dtype=torch.bool) if fresh else mine.any(dim=0)
        part = None if bias is None else bias[chosen]
        if bool(used.any()) or part is not None:
            used = used if bool(used.any()) else torch.ones_like(used)
            yield site, down[used], mine[:, used], part
    if bool(up[~covered].any()):
        raise InteropError(f"the LoRA of {path!r} changes features that are no query, key or value.")


def write(
    record: Record, places: Places, *, uniform: bool = False
) -> tuple[dict[str, Any], dict[str, Tensor], set[str]]:
    """Return config, tensors and the wrapped modules of an attachment's LoRA.

    ``uniform`` writes one rank and one alpha, for readers that know no patterns: smaller ranks are filled up with
    zeros, and scales that differ go into B.

    Raises:
        InteropError: a change is no LoRA of a projection.
    """
    model = places.model
    grouped: dict[str, list[Op]] = {}
    inside: list[Op] = []
    for one in record.plan.placements:
        op = Op(record, one, record.changes[one.key], joint(one, ()))
        if one.site.stacked is not None:
            inside.append(op)
            continue
        _refuse_foreign(op)
        grouped.setdefault(one.site.value.module, []).append(op)
    if inside and uniform:
        raise InteropError("engines that serve LoRA folders do not read PEFT's LoRA of experts' parameters.")
    experts.refuse_trained(inside, [name for name, _ in record.plan.trained])
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}
    tensors: dict[str, Tensor] = {}
    biased = any(isinstance(op.change.delta, BottleneckDelta) for ops in grouped.values() for op in ops)
    joined = {path: _joined(model, path, ops) for path, ops in grouped.items()}
    if uniform:
        joined = _alike(joined)
    for path, (down, up, bias, scale) in joined.items():
        ranks[path] = down.shape[0]
        alphas[path], up = _alpha(scale, down.shape[0], up)
        tensors |= _named(model, path, down, up)
        if biased:
            tensors[f"{PREFIX}{path}.lora_B.bias"] = bias
    in_experts = experts.write(places, inside)
    whole = {}
    for path, (down, up, scale) in in_experts.items():
        ranks[path] = down.shape[1]
        alphas[path], up = _alpha(scale, down.shape[1], up)
        whole[path] = down, up
    tensors |= experts.named(places, whole)
    every = [op for ops in grouped.values() for op in ops]
    lookups = [op for op in every if isinstance(model.get_submodule(op.port.module), nn.Embedding)]
    if lookups and biased:
        raise InteropError("PEFT's lora_bias goes with no embedding; leave the bottlenecks' biases out.")
    dropouts = {float(getattr(op.placement.modification.form, "dropout", 0.0)) for op in every if op not in lookups}
    dropouts = dropouts or {0.0}
    if len(dropouts) > 1:
        raise InteropError(f"PEFT has one lora_dropout for all modules; here there are {sorted(dropouts)}.")
    if inside and (biased or dropouts != {0.0}):
        found = "a bias of its own" if biased else "dropout at other places"
        raise InteropError(f"PEFT's LoRA of experts' parameters does not go with {found}; leave one of them out.")
    rank, alpha = _usual(ranks.values()), _usual(alphas.values())
    config: dict[str, Any] = {
        "peft_type": "LORA", "r": rank, "lora_alpha": alpha, "lora_dropout": dropouts.pop(), "lora_bias": biased,
        "target_modules": short_names(model, grouped), "fan_in_fan_out": places.fan_in_fan_out(grouped),
        "use_rslora": False, "use_dora": False, "init_lora_weights": True, "layers_to_transform": None,
        "rank_pattern": {path: found for path, found in sorted(ranks.items()) if found != rank},
        "alpha_pattern": {path: found for path, found in sorted(alphas.items()) if found != alpha},
    }  # fmt: skip
    if inside:
        config |= {"target_parameters": experts.targets_of(places, whole), "peft_version": experts.FORMAT_VERSION}
    return config, tensors, set(grouped)


def _named(model: nn.Module, path: str, down: Tensor, up: Tensor) -> dict[str, Tensor]:
    """Return A and B under PEFT's names, and in its shapes: a convolution's A is a convolution, and B one of size 1."""
    module = model.get_submodule(path)
    if isinstance(module, nn.Embedding):
        _refuse_scaled(module, path)
        if path not in dict(model.named_modules()):
            raise InteropError(f"{path!r} is an embedding that several stacks share; PEFT knows it by another path.")
        return {f"{PREFIX}{path}.lora_embedding_A": down, f"{PREFIX}{path}.lora_embedding_B": up}
    if isinstance(module, nn.modules.conv._ConvNd):
        ones = [1] * len(module.kernel_size)
        down, up = down.view(-1, module.in_channels, *module.kernel_size), up.view(*up.shape, *ones)
    return {f"{PREFIX}{path}.lora_A.weight": down, f"{PREFIX}{path}.lora_B.weight": up}


def _refuse_scaled(module: nn.Embedding, path: str) -> None:
    if lookup_scale(module) != 1.0:
        raise InteropError(
            f"LoRA of {path!r}: this embedding scales its vectors, and versions of PEFT differ in whether the scale is "
            "on the LoRA, too."
        )


def _refuse_foreign(op: Op) -> None:
    site, one = op.placement.site, op.placement.modification
    if op.kind != "linear":
        raise InteropError(
            f"{op.placement.key!r}: PEFT's LoRA is a linear change of a projection; it has no {one.form.tag!r} here. "
            "unipetl.save keeps every method."
        )
    if not op.parallel or site.representation not in (*PROJECTIONS, "embedding"):
        raise InteropError(
            f"{op.placement.key!r}: PEFT's LoRA reads what its projection reads; a {type(one.insertion).tag} change of "
            f"{site.representation!r} is none."
        )


def _joined(model: nn.Module, path: str, ops: list[Op]) -> tuple[Tensor, Tensor, Tensor, float]:
    """Return A, B, the bias and s of every change of one module, as one."""
    outer = features_of(model, path)[1]
    fixed = [op.scale for op in ops if isinstance(op.scale, float)]
    scale = fixed[0] if fixed else 1.0
    downs, ups = [], []
    first = next(ops[0].change.delta.parameters())
    bias = first.new_zeros(outer)
    for op in ops:
        delta = op.change.delta
        assert isinstance(delta, (LowRankDelta, BottleneckDelta))
        factor = op.scale / scale
        chosen = rows(op.placement.site.value, outer).to(first.device)
        up = first.new_zeros(outer, delta.down.shape[0])
        up[chosen] = delta.up.detach() if isinstance(factor, float) and factor == 1.0 else delta.up.detach() * factor
        if isinstance(delta, BottleneckDelta) and delta.down_bias is not None and delta.up_bias is not None:
            bias[chosen] += (delta.up.detach() @ delta.down_bias.detach() + delta.up_bias.detach()) * factor
        downs.append(delta.down.detach())
        ups.append(up)
    return torch.cat(downs), torch.cat(ups, dim=1), bias, scale


_Joined = tuple[Tensor, Tensor, Tensor, float]


def _alike(joined: Mapping[str, _Joined]) -> dict[str, _Joined]:
    """Return A, B, bias and s of every module with one rank and one s, and an alpha that is s times the rank."""
    rank = max(down.shape[0] for down, _, _, _ in joined.values())
    scales = {scale for _, _, _, scale in joined.values()}
    common = next(iter(scales))
    inside = len(scales) > 1 or common * rank / rank != common
    found = {}
    for path, (down, up, bias, scale) in joined.items():
        missing = rank - down.shape[0]
        up = up * scale if inside else up
        found[path] = (
            torch.cat([down, down.new_zeros(missing, down.shape[1])]),
            torch.cat([up, up.new_zeros(up.shape[0], missing)], dim=1),
            bias,
            1.0 if inside else scale,
        )
    return found


def _alpha(scale: float, rank: int, up: Tensor) -> tuple[float, Tensor]:
    """Return alpha with alpha / rank = s to the bit, and B; where there is no such alpha, s goes into B."""
    near = scale * rank
    for alpha in (near, math.nextafter(near, math.inf), math.nextafter(near, -math.inf)):
        if alpha / rank == scale:
            return (int(alpha) if alpha == int(alpha) else alpha), up
    return rank, up * scale


def _usual(values: Iterable[Any]) -> Any:
    found = list(values)
    return max(dict.fromkeys(found), key=found.count)
