"""Tells, from a trace, which linear maps of a block are its FFN: up, gate and down, or a mixture of experts."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from unipetl.architectures import Port, Projection
from unipetl.architectures.base import FeedForwardTable
from unipetl.inference.flow import acting, inside
from unipetl.inference.residual import Joint, is_dropout, surroundings
from unipetl.inference.tracing import Call, Trace

ATTENTION = re.compile(r"attn|attention", re.IGNORECASE)
MIXTURE = re.compile(r"Mo[Ee](Block|Layer)?$|SparseM\w+$")
EXPERTS = re.compile(r"expert|moe|router", re.IGNORECASE)


def feed_forward_of(
    trace: Trace, model: nn.Module, block: str, attention: frozenset[str]
) -> tuple[FeedForwardTable, Joint] | None:
    """Return the FFN of a block, or None; ``attention`` are the linear maps that belong to attentions."""
    mixture = mixture_of(trace, block, attention)
    calls = [call for call in trace.within(block) if call.leaf is not None and call.path not in attention]
    attending = _attending(trace, model, block)
    calls = [call for call in calls if not any(f"{call.path}.".startswith(f"{path}.") for path in attending)]
    dense = [c for c in calls if not EXPERTS.search(c.path[len(block) :])]
    if mixture is not None:
        dense = [call for call in dense if not f"{call.path}.".startswith(f"{mixture.path}.")]
    pair = pair_of(dense)
    if pair is None:
        return None if mixture is None else _mixture_table(trace, block, mixture)
    ups, down = pair
    made = roles_of(ups, down)
    if made is None:
        return None
    up, gate, first = made
    assert first.read is not None
    joint = surroundings(trace, block, first.read, down, first.start)
    result = Port(inside(block, joint.result), "output")
    ends_in_dropout = is_dropout(model.get_submodule(joint.result))
    table = FeedForwardTable(
        up=_relative(block, up),
        gate=_relative(block, gate) if gate else None,
        down=Projection(inside(block, down.path)),
        norm=_norm(block, joint),
        result=result,
        join=None if joint.after is None or ends_in_dropout else Port(inside(block, joint.after), "input"),
    )
    return table, joint


def _attending(trace: Trace, model: nn.Module, block: str) -> set[str]:
    """Return the modules that attend, understood or not: a value and an output projection are no FFN."""
    found = set()
    for path in {one.path for one in trace.attentions}:
        while path.startswith(f"{block}.") and ATTENTION.search(type(model.get_submodule(path)).__name__):
            found.add(path)
            path = path.rpartition(".")[0]
    return found


def pair_of(calls: list[Call]) -> tuple[dict[str, tuple[Call, Tensor]], Call] | None:
    """Return the last linear map that other ones act on, with those.

    Of several the widest inside is taken, and those that keep tokens apart come first: a state-space layer has
    projections in and out, too, and may be wider than the FFN beside it.
    """
    best, rank = None, (False, 0)
    for down in calls:
        if down.read is None or down.gave is None:
            continue
        earlier = [call for call in calls if call.end < down.start and call.path != down.path]
        by_path = {call.path: call for call in earlier}
        found = {path: (by_path[path], gradient) for path, gradient in acting(down.read, earlier).items()}
        if not found or len(found) > 2 or any(call.read is None for call, _ in found.values()):
            continue
        inner, outer = down.read.shape[-1], down.gave.shape[-1]
        if any(call.read.shape[-1] != outer for call, _ in found.values()):  # type: ignore[union-attr]
            continue
        own = (not _mixes_tokens(down.read, [call for call, _ in found.values()]), inner)
        if own >= rank:
            best, rank = (found, down), own
    return best


def _mixes_tokens(read: Tensor, ups: list[Call]) -> bool:
    """Whether what is read for the last token depends on what was computed for others."""
    if read.dim() < 2 or read.shape[-2] < 2:
        return False
    last = torch.zeros_like(read)
    last[..., -1, :] = 1.0
    for gradient in acting(read, ups, last).values():
        if gradient.shape[:-1] == read.shape[:-1] and bool(gradient[..., :-1, :].abs().max() > 0):
            return True
    return False


def roles_of(ups: dict[str, tuple[Call, Tensor]], down: Call) -> tuple[Projection, Projection | None, Call] | None:
    """Tell the gate from the map that the result is linear in: scaling the latter scales the result."""
    assert down.read is not None
    calls = [call for call, _ in ups.values()]
    inner = down.read.shape[-1]
    if len(calls) == 1:
        leaf = calls[0].leaf
        assert leaf is not None
        if leaf.shape[-1] == inner:
            return Projection(calls[0].path), None, calls[0]
        if leaf.shape[-1] != 2 * inner:
            return None
        halves = [slope_of(down, calls[0], slice(0, inner)), slope_of(down, calls[0], slice(inner, None))]
        if alike(halves) and min(halves) > _EXACT:
            return None  # neither half is the up projection: they are laid out otherwise
        up = 0 if halves[0] < halves[1] and not alike(halves) else 1
        return Projection(calls[0].path, up, 2), Projection(calls[0].path, 1 - up, 2), calls[0]
    slopes = [slope_of(down, call, slice(None)) for call in calls]
    linear = [one == min(slopes) for one in slopes]
    if alike(slopes):
        linear = [not re.search(r"gate|wi_0|w1|act", call.path.rpartition(".")[2]) for call in calls]
        if linear[0] == linear[1]:
            return None
    up_call, gate_call = (calls[0], calls[1]) if linear[0] else (calls[1], calls[0])
    return Projection(up_call.path), Projection(gate_call.path), up_call


#: How far a map that the result is linear in may seem not to be, in float32; and how many times as far a gate must.
_EXACT, _CLEARER = 1e-4, 4


def slope_of(down: Call, call: Call, columns: slice) -> float:
    """Return how far what ``down`` reads is from homogeneous of degree one in some columns of a map's result.

    By Euler's theorem a homogeneous function is the sum of its derivatives times its arguments; 0 is exact.
    """
    assert down.read is not None and call.leaf is not None
    generator = torch.Generator().manual_seed(1)
    weight = torch.rand(down.read.shape, generator=generator, dtype=torch.float64).to(down.read) + 0.5
    (gradient,) = torch.autograd.grad((down.read * weight).sum(), [call.leaf], retain_graph=True)
    terms = down.read.detach().double() * weight.double()
    part = (gradient.double() * call.leaf.detach().double())[..., columns].sum()
    return float((part - terms.sum()).abs() / terms.abs().sum().clamp(min=1e-300))


def alike(slopes: list[float]) -> bool:
    """Whether neither of two maps is clearly the one that the result is linear in."""
    return max(slopes) <= _EXACT or max(slopes) <= _CLEARER * min(slopes)


def mixture_of(trace: Trace, block: str, attention: frozenset[str]) -> Call | None:
    """Return the call of a mixture of experts: what has experts inside, or is called so, and is no attention.

    Every class of a family may be called so in front (``Qwen3MoeAttention``, ``Qwen3MoeMLP``).
    """
    calls = [
        call
        for call in trace.within(block)[1:]
        if not ATTENTION.search(type(call.module).__name__)
        and not any(f"{path}.".startswith(f"{call.path}.") for path in attention)
        and next(call.module.children(), None) is not None
    ]
    with_experts = (one for one in calls if "experts" in one.module._modules)
    called_so = (one for one in calls if MIXTURE.search(type(one.module).__name__))
    return next(with_experts, None) or next(called_so, None)


def _mixture_table(trace: Trace, block: str, mixture: Call) -> tuple[FeedForwardTable, Joint] | None:
    if mixture.read is None or mixture.gave is None or mixture.read.shape[-1] != mixture.gave.shape[-1]:
        return None
    joint = surroundings(trace, block, mixture.read, mixture, mixture.start)
    table = FeedForwardTable(
        up=None,
        down=None,
        norm=_norm(block, joint),
        result=Port(inside(block, joint.result), "output"),
        reads=inside(block, mixture.path),
    )
    return table, joint


def _norm(block: str, joint: Joint) -> str | None:
    found = joint.before or joint.after
    return inside(block, found) if found else None


def _relative(block: str, projection: Projection) -> Projection:
    return Projection(inside(block, projection.module), projection.part, projection.parts)
