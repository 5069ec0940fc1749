"""Which sites a method's modifications name, and the parameters each place gets."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import nn

from unipetl.architectures import Architecture, Site, feed_forward_in, find_blocks
from unipetl.architectures.interface import uses_interface
from unipetl.composition import Add
from unipetl.errors import PlanError, unknown
from unipetl.forms import Experts, Features, Form, Heads, LowRank, Shape, build_at, paper_parameters_at
from unipetl.insertion import Parallel, Sequential
from unipetl.method import Method, Modification
from unipetl.planning.blueprint import Group, Placement
from unipetl.planning.units import settle
from unipetl.representation import NAMES, Representation, rank
from unipetl.sense import EXPERT_PLACES, shape_at


def place(method: Method, model: nn.Module, sites: Sequence[Site]) -> tuple[tuple[Placement, ...], tuple[Group, ...]]:
    """Return every change of ``method``, in the order of the computation, and what changes share.

    Raises:
        PlanError: a modification names nothing here, or cannot be made here.
    """
    placements: list[Placement] = []
    groups: list[Group] = []
    for one, label in labelled(method.modifications):
        for members in _by_attention(select(one, sites)).values():
            _refuse_impossible(one, model, members)
            shapes = tuple(shape_at(one, site.shape) for site in members)
            shared = _shared_parameters(one.form, shapes)
            group = None
            if shared:
                first = members[0]
                group = f"{first.stack.stack}.{first.kind}/{label}"
                groups.append(Group(group, label, one.form, shapes, shared))
            learned = isinstance(one.composition, Add) and one.composition.scale == "learned"
            for index, (site, shape) in enumerate(zip(members, shapes, strict=True)):
                settled = settle(one, model, site, sites)
                placements.append(
                    Placement(
                        key=f"{site.name}/{label}",
                        label=label,
                        site=site,
                        modification=settled,
                        shape=shape,
                        group=group,
                        index=index,
                        parameters=_own_parameters(settled.form, shape, shapes if shared else None) + learned,
                        paper_parameters=paper_parameters_at(settled.form, shape),
                    )
                )
    order = {site.name: number for number, site in enumerate(sites)}
    placements.sort(key=lambda one: (order[one.site.name], one.label))
    return tuple(placements), tuple(sorted(groups, key=lambda group: group.key))


def unreached(method: Method, model: nn.Module, base: str, architecture: Architecture) -> tuple[str, ...]:
    """Return a sentence for whatever parts of FFNs the method names and the plan does not reach: experts, layers."""
    notes = []
    named = [one.representation for one in method.modifications]
    named = [one for one in named if one.name in EXPERT_PLACES and one.experts is not False]
    for table in architecture.stacks:
        wanted = [one.name for one in named if one.stack in (None, table.stack)]
        found = (
            [feed_forward_in(model, block, table) for block in find_blocks(model, base, table) or ()] if wanted else []
        )
        closed = {layer: ffn.closed for layer, ffn in enumerate(found) if ffn is not None and ffn.closed is not None}
        if closed:
            layers = ", ".join(map(str, closed))
            notes.append(
                f"Not reached: {', '.join(dict.fromkeys(wanted))} of the experts in {table.stack} layers {layers} "
                f"({next(iter(closed.values()))}), whose projections are not understood."
            )
        without = [str(layer) for layer, ffn in enumerate(found) if ffn is None]
        if without and len(without) < len(found):
            notes.append(f"Not reached: {table.stack} layers {', '.join(without)}, in which no FFN is found.")
    return tuple(notes)


def _by_attention(sites: Sequence[Site]) -> dict[tuple[str, str | None], list[Site]]:
    members: dict[tuple[str, str | None], list[Site]] = {}
    for site in sites:
        members.setdefault((site.stack.stack, site.kind), []).append(site)
    return members


def _refuse_impossible(one: Modification, model: nn.Module, members: Sequence[Site]) -> None:
    for site in members:
        _refuse_lookup(one, site)
        if one.form.needs is Heads:
            _refuse_without_interface(model, site)
        biased = site.stacked is not None and site.stacked.biased and one.representation.name != "ffn.hidden"
        if biased and not isinstance(one.insertion, Parallel):
            raise PlanError(
                f"insertion {one.insertion.plain()!r} at {site.name!r}: the experts of this model add a bias after the "
                "product with their matrix, out of reach; what reads h would read it without. Use insertion 'parallel'."
            )
        normed = isinstance(one.insertion, Sequential) and one.insertion.reads == "normed"
        if normed and site.norm_after is None:
            raise PlanError(
                "insertion 'sequential' with reads='normed': this model is pre-norm, no norm follows 'ffn.residual'; "
                "use representation 'block'."
            )
        residual = isinstance(one.insertion, Parallel) and one.insertion.reads == "residual"
        if residual and one.form.needs is not Heads and site.residual is None:
            raise PlanError(
                f"insertion 'parallel' with reads='residual': no norm is known in front of {site.name!r}, so it is not "
                "known where the residual stream could be read; use reads='normed'."
            )


def _refuse_lookup(one: Modification, site: Site) -> None:
    """Refuse what cannot read a token's number."""
    if not (isinstance(site.shape, Features) and site.shape.lookup and isinstance(one.insertion, Parallel)):
        return
    if not isinstance(one.form, LowRank):
        raise PlanError(
            f"functional form {one.form.tag!r} with insertion 'parallel' at {site.name!r}: what the embedding reads is "
            "a token's number, and only 'low_rank' looks one up. Use insertion 'sequential', which reads the vector."
        )
    if one.form.dropout:
        raise PlanError(
            f"dropout {one.form.dropout} at {site.name!r}: it would act on a token's number; leave it out there, or "
            "use insertion 'sequential'."
        )


def labelled(modifications: Sequence[Modification]) -> list[tuple[Modification, str]]:
    """Return every modification with a short name that does not depend on their order.

    Raises:
        PlanError: the same modification stands there twice.
    """
    names: dict[tuple[str, str], int] = {}
    result = []
    ordered = sorted(modifications, key=lambda one: Method(modifications=(one,)).canonical())
    for before, after in itertools.pairwise(ordered):
        if before == after:
            raise PlanError(
                f"the same modification of {str(after.representation)!r} stands there twice; "
                "use one with a larger rank or length instead."
            )
    for one in ordered:
        label = f"{type(one.insertion).tag}_{type(one.form).tag}"
        count = names[(one.representation.name, label)] = names.get((one.representation.name, label), 0) + 1
        result.append((one, label if count == 1 else f"{label}_{count}"))
    return result


def select(one: Modification, sites: Sequence[Site]) -> list[Site]:
    """Return the sites that the representation of ``one`` names.

    Raises:
        PlanError: there are none, or a layer is out of range.
    """
    wanted = one.representation
    named = [site for site in sites if site.representation == wanted.name]
    stacks = {site.stack.stack for site in sites}
    if wanted.stack is not None and wanted.stack not in stacks:
        raise PlanError(f"{unknown('stack', wanted.stack, sorted(stacks))} This model has these alone.")
    if wanted.name == "input" and len(stacks) > 1:
        if wanted.stack == "decoder" or all(site.stack.stack == "decoder" for site in named):
            raise PlanError(
                "modified representation 'input': in an encoder-decoder model a prompt stands in front of the "
                "encoder's tokens, and "
                + ("the decoder's are no choice." if wanted.stack == "decoder" else "this encoder reads no tokens.")
                + " Use 'head_attention' at 'attention.heads' for learned keys and values in the decoder."
            )
        named = [site for site in named if site.stack.stack == "encoder"]  # the paper's prompt is the encoder's
    chosen = [site for site in named if wanted.stack in (None, site.stack.stack) and wanted.kind in (None, site.kind)]
    if wanted.layers is not None:
        depths = {
            site.stack.stack: max(s.layer for s in sites if s.stack.stack == site.stack.stack) + 1 for site in chosen
        }
        for layer in wanted.layers:
            if not any(-depth <= layer < depth for depth in depths.values()):
                found = ", ".join(f"{stack} {depth}" for stack, depth in sorted(depths.items()))
                raise PlanError(f"layers: there is no layer {layer}; depths of the selected stacks: {found or 'none'}.")
        chosen = [s for s in chosen if s.layer in wanted.layers or s.layer - depths[s.stack.stack] in wanted.layers]
    chosen = _of_experts(wanted, chosen)
    if not chosen and not wanted.optional:
        raise PlanError(f"modified representation {str(wanted)!r}: {_why_nothing(wanted.name, sites)}")
    return chosen


def _of_experts(wanted: Representation, sites: list[Site]) -> list[Site]:
    """Return the sites that ``experts`` selects; of one that holds all experts, shape_at takes those chosen.

    Raises:
        PlanError: there is no expert of a number.
    """
    if wanted.experts is None:
        return sites
    inside = [site for site in sites if site.inside == "experts"]
    if isinstance(wanted.experts, bool):
        return inside if wanted.experts else [site for site in sites if site not in inside]
    counts = [site.shape.total for site in inside if isinstance(site.shape, Experts)]
    count = min(counts, default=0) or max((site.expert + 1 for site in inside if site.expert is not None), default=0)
    if inside and wanted.experts[-1] >= count:
        raise PlanError(f"experts: there is no expert {wanted.experts[-1]}; a layer has {count}, counted from 0.")
    return [site for site in inside if site.expert is None or site.expert in wanted.experts]


def _why_nothing(name: str, sites: Sequence[Site]) -> str:
    found = sorted({site.representation for site in sites}, key=rank)
    if name not in found:
        return f"this model has none ({NAMES[name]}). It has: {', '.join(found)}."
    where = {f"{site.stack.stack} {site.kind or ''}".strip() for site in sites if site.representation == name}
    return f"nothing in this model fits; it has {name!r} in: {', '.join(sorted(where))}."


@lru_cache(maxsize=4096)
def _own_parameters(form: Form, shape: Shape, shapes: tuple[Shape, ...] | None) -> int:
    with torch.device("meta"):
        shared = form.build_shared(shapes) if shapes else None
        return sum(parameter.numel() for parameter in build_at(form, shape, shared, 0).parameters())


@lru_cache(maxsize=4096)
def _shared_parameters(form: Form, shapes: tuple[Shape, ...]) -> int:
    with torch.device("meta"):
        shared = None if isinstance(shapes[0], Experts) else form.build_shared(shapes)
    return 0 if shared is None else sum(parameter.numel() for parameter in shared.parameters())


def _refuse_without_interface(model: nn.Module, site: Site) -> None:
    core = model.get_submodule(site.owner)
    if site.softmax is None and not uses_interface(core):
        raise PlanError(
            f"modified representation 'attention.heads': {type(core).__name__} computes its attention without "
            "transformers' attention interface, so nothing can be added inside it. What works here: "
            "'bottleneck' or 'low_rank' at 'attention', 'attention.query' or 'ffn'."
        )
