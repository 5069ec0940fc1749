r"""LoRA of the experts' parameters (``target_parameters``): one A and one B for all experts of a parameter.

A parameter of E experts has A of (E r, in), expert after expert, and B of (out, r E), in which the expert is the inner
index: :math:`\Delta W_e = s B_e A_e` with ``A_e = A[e r:(e + 1) r]`` and ``B_e = B.view(out, r, E)[:, :, e]``. Before
0.19 PEFT did so only where the parameter is (E, in, out); where it is (E, out, in), A had (E r, out) and B (in, r E),
and the change was :math:`s A_e^T B_e^T`.

A module whose parameters are targeted is wrapped once for each, in the order of their definition, so the last one's
tensors are those of the module and the ones before have ``.base_layer`` in their names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from unipetl.architectures import Site
from unipetl.errors import InteropError
from unipetl.folding.linear import rows
from unipetl.folding.steps import Op
from unipetl.forms import Experts, ExpertsDelta, LowRank
from unipetl.interop.peft.files import Folder
from unipetl.interop.peft.names import PREFIX, Places

#: The first version whose A reads what the expert reads, however the parameter lies.
FORMAT_VERSION = "0.19.0"
_WRAPPED = ".base_layer"

Pairs = dict[str, dict[str, Tensor]]


def apart(places: Places, pairs: Pairs) -> tuple[Pairs, Pairs]:
    """Return the pairs of modules, and those of modules that hold experts' parameters."""
    modules: Pairs = {}
    experts: Pairs = {}
    owners = {owner for owner, _ in places.stacked}
    for path, pair in pairs.items():
        whole = path.replace(_WRAPPED, "")
        inside = any(whole == owner or whole.endswith(f".{owner}") or owner.endswith(f".{whole}") for owner in owners)
        (experts if inside else modules)[path] = pair
    return modules, experts


def read(
    folder: Folder, places: Places, pairs: Pairs, scale_of: Callable[[str, int], float]
) -> dict[str, tuple[dict[str, Tensor], float]]:
    """Return name of a site -> the form's values there, and its scale.

    Args:
        folder: the PEFT folder.
        places: the model's places.
        pairs: A and B by the path of the (wrapped) module.
        scale_of: (path of a parameter, rank) -> s.

    Raises:
        InteropError: the tensors do not fit the config or the model, or a parameter is no place of ours.
    """
    targets = folder.setting("target_parameters", list, [])
    wanted = _wanted(places, targets)
    found: dict[str, tuple[dict[str, Tensor], float]] = {}
    by_owner: dict[str, dict[int, dict[str, Tensor]]] = {}
    for path, pair in pairs.items():
        owner = places.module(path.replace(_WRAPPED, ""))
        by_owner.setdefault(owner, {})[path.count(_WRAPPED)] = pair
    for owner in {**wanted, **by_owner}:
        parameters, there = wanted.get(owner, []), by_owner.get(owner, {})
        if set(there) != set(range(len(parameters))):
            raise InteropError(
                f"{str(folder.path)!r}: {owner!r} has tensors for {len(there)} parameters, and target_parameters "
                f"({', '.join(map(repr, targets)) or 'none'}) name {len(parameters)} of its; the file does not fit its "
                "config or this model."
            )
        for depth, parameter in enumerate(reversed(parameters)):
            pair = there[depth]
            sites = places.stacked[owner, parameter]
            down, up = _matrices(folder, places, sites, f"{owner}.{parameter}", pair)
            scale = scale_of(f"{owner}.{parameter}", down.shape[1])
            found |= {name: (values, scale) for name, values in _parts(sites, f"{owner}.{parameter}", down, up)}
    return found


def _wanted(places: Places, targets: Sequence[Any]) -> dict[str, list[str]]:
    """Return the parameters that ``target_parameters`` name, by their module and in the order of their definition."""
    found: dict[str, list[str]] = {}
    left = {str(one) for one in targets}
    for key, _ in places.model.named_parameters():
        hit = {one for one in map(str, targets) if key == one or key.endswith(f".{one}")}
        if not hit:
            continue
        left -= hit
        owner, _, name = key.rpartition(".")
        if (owner, name) not in places.stacked:
            raise InteropError(
                f"target_parameters: {key!r} holds no experts' matrices that are a place of the design space; LoRA of "
                "a module's weight is in target_modules."
            )
        found.setdefault(owner, []).append(name)
    if left:
        raise InteropError(f"target_parameters: this {type(places.model).__name__} has no {sorted(left)[0]!r}.")
    return found


def _matrices(
    folder: Folder, places: Places, sites: Sequence[Site], path: str, pair: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """Return A as (experts, r, in) and B as (experts, out, r)."""
    total, inner, outer = sizes(places, sites[0], path)
    a, b = pair["A"], pair["B"]
    if "bias" in pair:
        raise InteropError(f"the LoRA of {path!r} has a bias, which PEFT does not write there.")
    rank = a.shape[0] // total
    if a.shape[0] != rank * total or b.shape[1] != a.shape[0] or not rank:
        raise InteropError(
            f"the LoRA of {path!r} has shapes {tuple(a.shape)} and {tuple(b.shape)}, which are no (experts r, in) and "
            f"(out, r experts) of {total} experts."
        )
    first, second = a.view(total, rank, -1), b.view(b.shape[0], rank, total).permute(2, 0, 1)
    read, made = a.shape[1], b.shape[0]
    stacked = sites[0].stacked
    assert stacked is not None
    swapped = not stacked.transposed and (read, made) == (outer, inner)
    if swapped and inner == outer:
        swapped = _older(folder)
    if swapped:
        return second.transpose(1, 2), first.transpose(1, 2)
    if (read, made) != (inner, outer):
        raise InteropError(
            f"the LoRA of {path!r} maps {read} to {made} features, and each expert's matrix {inner} to {outer}."
        )
    return first, second


def _older(folder: Folder) -> bool:
    """Say whether a folder is of a version before the change of order; those before 0.18 do not tell theirs."""
    version = str(folder.config.get("peft_version") or "0").split(".")
    numbers = [int(one) if one.isdigit() else 0 for one in version[:2]]
    return numbers < [0, 19]


def sizes(places: Places, site: Site, path: str) -> tuple[int, int, int]:
    """Return experts, in features and out features of a parameter that holds experts."""
    shape = places.model.get_parameter(path).shape
    assert site.stacked is not None
    total, first, second = shape
    return (total, first, second) if site.stacked.transposed else (total, second, first)


def _parts(sites: Sequence[Site], path: str, down: Tensor, up: Tensor) -> Iterable[tuple[str, dict[str, Tensor]]]:
    """Yield, for every place that a parameter is (gate and up in one), the ranks that reach it."""
    fresh = not bool(up.any())
    covered = torch.zeros(up.shape[1], dtype=torch.bool)
    for site in sites:
        chosen = rows(site.value, up.shape[1])
        covered[chosen] = True
        mine = up[:, chosen]
        used = torch.ones(up.shape[2], dtype=torch.bool) if fresh else mine.any(dim=1).any(dim=0)
        if bool(used.any()):
            yield site.name, {"each.down": down[:, used], "each.up": mine[:, :, used]}
    if bool(up[:, ~covered].any()):
        raise InteropError(f"the LoRA of {path!r} changes features that are no place of ours.")


def write(places: Places, ops: Sequence[Op]) -> dict[str, tuple[Tensor, Tensor, float]]:
    """Return path of a parameter -> A (experts, r, in), B (experts, out, r) and s, of every change of experts.

    Raises:
        InteropError: a change is no LoRA, or has dropout.
    """
    grouped: dict[str, list[Op]] = {}
    for op in ops:
        _refuse_foreign(op)
        site = op.placement.site
        assert site.stacked is not None
        grouped.setdefault(f"{site.owner}.{site.stacked.parameter}", []).append(op)
    return {path: _joined(places, path, group) for path, group in grouped.items()}


def refuse_trained(ops: Iterable[Op], trained: Iterable[str]) -> None:
    """Refuse parameters that are trained in place in a module of experts beside the LoRA of others of its.

    Raises:
        InteropError: there is one.
    """
    owners = {op.placement.site.owner for op in ops}
    for name in trained:
        if name.rpartition(".")[0] in owners:
            raise InteropError(
                f"{name!r} is trained beside a LoRA of its module's other parameters, for which PEFT has no name."
            )


def _refuse_foreign(op: Op) -> None:
    form = op.placement.modification.form
    if not isinstance(form, LowRank) or op.kind != "linear" or not op.parallel:
        raise InteropError(
            f"{op.placement.key!r}: of experts PEFT has LoRA of their matrices alone; it has no such {form.tag!r}. "
            "unipetl.save keeps every method."
        )
    if form.dropout:
        raise InteropError(
            f"{op.placement.key!r}: PEFT's LoRA of parameters has no dropout, and here it is {form.dropout:g}. "
            "unipetl.save keeps every method."
        )


def _joined(places: Places, path: str, ops: Sequence[Op]) -> tuple[Tensor, Tensor, float]:
    total, _, outer = sizes(places, ops[0].placement.site, path)
    if total < 2:
        raise InteropError(f"{path!r} holds one expert, which PEFT takes for a plain matrix. unipetl.save keeps it.")
    fixed = [op.scale for op in ops if isinstance(op.scale, float)]
    scale = fixed[0] if fixed else 1.0
    downs, ups = [], []
    for op in ops:
        delta, shape = op.change.delta, op.placement.shape
        assert isinstance(delta, ExpertsDelta) and isinstance(shape, Experts)
        own_down, own_up = delta.each.get_parameter("down").detach(), delta.each.get_parameter("up").detach()
        factor = op.scale / scale
        own_up = own_up if isinstance(factor, float) and factor == 1.0 else own_up * factor
        chosen = rows(op.placement.site.value, outer).to(own_up.device)
        down = own_down.new_zeros(total, *own_down.shape[1:])
        up = own_up.new_zeros(total, outer, own_up.shape[2])
        for slot, expert in enumerate(shape.chosen):  # the others get a LoRA of zeros
            down[expert] = own_down[slot]
            up[expert, chosen] = own_up[slot]
        downs.append(down)
        ups.append(up)
    return torch.cat(downs, dim=1), torch.cat(ups, dim=2), scale


def named(places: Places, changes: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """Return path of a parameter -> A, B as the tensors of a file, under PEFT's names."""
    tensors: dict[str, Tensor] = {}
    depths: dict[str, int] = {}
    defined = [path for path, _ in places.model.named_parameters() if path in changes]
    for path in reversed(defined):
        owner = path.rpartition(".")[0]
        depth = depths.setdefault(owner, 0)
        depths[owner] += 1
        down, up = changes[path]
        start = f"{PREFIX}{owner}{_WRAPPED * depth}"
        tensors[f"{start}.lora_A.weight"] = down.flatten(0, 1)
        tensors[f"{start}.lora_B.weight"] = up.permute(1, 2, 0).flatten(1)
    return tensors


def targets_of(places: Places, paths: Iterable[str]) -> list[str]:
    """Return names for ``target_parameters`` that mean ``paths`` and nothing else, short ones where that holds."""
    wanted = set(paths)
    short = sorted({".".join(path.split(".")[-3:]) for path in wanted})
    named = {path for path, _ in places.model.named_parameters() if any(path.endswith(f".{one}") for one in short)}
    return short if named == wanted else sorted(wanted)
