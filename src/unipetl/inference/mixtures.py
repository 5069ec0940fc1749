"""Tells, from a trace, what is inside a mixture: the experts' projections, and those of experts all tokens visit."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch

from unipetl.architectures import ExpertsTable, Projection
from unipetl.inference.feed_forward import alike, mixture_of, pair_of, roles_of, slope_of
from unipetl.inference.flow import inside
from unipetl.inference.tracing import Call, Trace

#: The number of an expert, in the name of a module right below ``experts``.
_NUMBER = re.compile(r"(experts\.[a-z_]*)(\d+)\.")


def experts_of(trace: Trace, block: str, attention: frozenset[str]) -> tuple[tuple[ExpertsTable, ...], str | None]:
    """Return what is understood of the inside of a block's mixture, and the mixture's path if its experts are not.

    ``attention`` are the linear maps that belong to attentions.
    """
    mixture = mixture_of(trace, block, attention)
    if mixture is None:
        return (), None
    within = f"{mixture.path}."
    products = [
        one for one in trace.products if one.path.startswith(within) and mixture.start < one.start < mixture.end
    ]
    linears = [call for call in trace.within(mixture.path) if call.leaf is not None]
    found = [
        _stacked(block, _first(products)),
        _numbered(block, linears),
        _plain("shared", block, [call for call in linears if "shared" in call.path.removeprefix(within)]),
    ]
    known = tuple(one for one in found if one is not None)
    return known, None if any(one.name == "experts" for one in known) else inside(block, mixture.path)


def _first(calls: Iterable[Call]) -> list[Call]:
    """Return the first call of every path: those of one expert, or of all at once."""
    found: dict[str, Call] = {}
    for call in calls:
        found.setdefault(call.path, call)
    return list(found.values())


def _plain(name: Any, block: str, calls: list[Call]) -> ExpertsTable | None:
    pair = pair_of(calls)
    made = None if pair is None else roles_of(*pair)
    if pair is None or made is None:
        return None
    up, gate, _ = made
    return ExpertsTable(
        name,
        _inside(block, up),
        Projection(inside(block, pair[1].path)),
        None if gate is None else _inside(block, gate),
    )


def _inside(block: str, projection: Projection) -> Projection:
    return replace(projection, module=inside(block, projection.module))


def _numbered(block: str, calls: list[Call]) -> ExpertsTable | None:
    """Return the experts that are modules of their own, known by the first that computed."""
    visited = [(match[2], call) for call in calls if (match := _NUMBER.search(call.path))]
    table = _plain("experts", block, [call for number, call in visited if number == visited[0][0]])
    if table is None:
        return None

    def every(projection: Projection | None) -> Projection | None:
        if projection is None:
            return None
        return replace(projection, module=_NUMBER.sub(r"\1*.", projection.module))

    up, down = every(table.up), every(table.down)
    assert up is not None
    assert down is not None
    return ExpertsTable("experts", up, down, every(table.gate))


def _stacked(block: str, products: list[Call]) -> ExpertsTable | None:
    """Return the experts whose matrices are parameters."""
    pair = pair_of(products)
    if pair is None:
        return None
    ups, down = pair
    calls = [call for call, _ in ups.values()]
    transposed = _transposed([*calls, down])
    if transposed is None:
        return None
    interleaved = len(calls) == 1 and _alternates(calls[0], down)
    made = _fused(calls[0], down, interleaved) if len(calls) == 1 else roles_of(ups, down)
    if made is None:
        return None
    up, gate = made[:2]
    return ExpertsTable(
        "experts",
        _inside(block, up),
        Projection(inside(block, down.path)),
        None if gate is None else _inside(block, gate),
        transposed=transposed,
        interleaved=interleaved,
        biased=any(_biased(call) for call in (*calls, down)),
    )


def _transposed(calls: list[Call]) -> bool | None:
    """Return whether parameters are (experts, in, out); None where nothing tells."""
    for call in calls:
        shape = call.module._parameters[call.path.rpartition(".")[2]].shape  # type: ignore[union-attr]
        if shape[1] != shape[2] and call.read is not None:
            return bool(shape[1] == call.read.shape[-1])
    told = getattr(calls[0].module, "is_transposed", None)
    return told if isinstance(told, bool) else None


def _biased(call: Call) -> bool:
    """Whether the module of experts has a vector for each of them, too."""
    total = call.module._parameters[call.path.rpartition(".")[2]].shape[0]  # type: ignore[union-attr]
    return any(one is not None and one.dim() == 2 and one.shape[0] == total for one in call.module._parameters.values())


def _alternates(call: Call, down: Call) -> bool:
    """Whether a unit's gate and up feature are neighbours; half of the features lie between them otherwise."""
    assert down.read is not None
    assert call.leaf is not None
    if call.leaf.shape[-1] != 2 * down.read.shape[-1]:
        return False
    used = []
    for unit in (0, 1):
        (gradient,) = torch.autograd.grad(down.read[..., unit].sum(), [call.leaf], retain_graph=True)
        used.append(gradient.abs().flatten(0, -2).amax(dim=0).nonzero().flatten().tolist())
    return max(used[0], default=0) == 1 or max(used[1], default=0) == 3


def _fused(call: Call, down: Call, interleaved: bool) -> tuple[Projection, Projection | None] | None:
    """Tell up from gate in one product: the result is affine in the former."""
    assert down.read is not None
    assert call.leaf is not None
    inner = down.read.shape[-1]
    if call.leaf.shape[-1] == inner:
        return Projection(call.path), None
    if call.leaf.shape[-1] != 2 * inner:
        return None
    parts = [slice(0, None, 2), slice(1, None, 2)] if interleaved else [slice(0, inner), slice(inner, None)]
    curved = [_curvature(call, down, part) for part in parts]
    if alike(curved):  # a ReLU has no curvature; the map that the result is linear in has the smaller defect
        slopes = [slope_of(down, call, part) for part in parts]
        curved = slopes if not alike(slopes) else [1.0, 0.0]
    up = curved.index(min(curved))
    return Projection(call.path, up, 2), Projection(call.path, 1 - up, 2)


def _curvature(call: Call, down: Call, part: slice) -> float:
    """Return how far what ``down`` reads is from affine in some columns of a product, relative to its slope there."""
    assert down.read is not None
    assert call.leaf is not None
    generator = torch.Generator().manual_seed(2)
    weights = [
        torch.rand(one.shape, generator=generator, dtype=torch.float64).to(one) for one in (down.read, call.leaf)
    ]
    (slope,) = torch.autograd.grad((down.read * weights[0]).sum(), [call.leaf], create_graph=True)
    directed = (slope * weights[1])[..., part].sum()
    if not directed.requires_grad:
        return 0.0
    (second,) = torch.autograd.grad(directed, [call.leaf], retain_graph=True, allow_unused=True)
    if second is None:
        return 0.0
    return float(second[..., part].abs().max() / slope.detach()[..., part].abs().max().clamp(min=1e-30))
