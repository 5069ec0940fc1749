"""How a sub-layer stands in its block: the norm before or after it, and where its result joins the residual stream."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from torch import Tensor, nn

from unipetl.inference.flow import equal
from unipetl.inference.tracing import Call, Trace, same_object


@dataclass(frozen=True)
class Joint:
    """A sub-layer's surroundings, as paths.

    Attributes:
        before: the norm whose result the sub-layer reads (pre-norm), if any.
        after: the norm that reads the stream with the result added (post-norm), if any.
        result: the module whose result is what is added to the stream.
        dropped: whether a dropout or a wrapper is all that lies between the last linear map and ``result``.
    """

    before: str | None
    after: str | None
    result: str
    dropped: bool


def surroundings(trace: Trace, block: str, x: Tensor, last: Call, began: int) -> Joint:
    """Return how the sub-layer that reads ``x`` and ends with the linear map (or module) ``last`` stands in its block.

    Args:
        trace: a forward pass.
        block: the block's path.
        x: what the sub-layer reads.
        last: the call whose result is the sub-layer's, before dropout and the like.
        began: the time at which the sub-layer began.
    """
    calls = trace.within(block)
    outer = calls[0]
    calls = _called_once(calls)
    norms = [one for one in reversed(calls) if _before(one, began) and is_norm(one.module) and equal(one.gave, x)]
    norm = next((one for one in norms if same_object(one.gave, x)), norms[0] if norms else None)
    chain = _chain(calls, last)
    later = [(one, one.read) for one in calls if one.start > last.end and one.read is not None]
    ends = [*later, (outer, outer.gave)]
    streams = [one for one in (norm.read if norm else None, outer.read) if one is not None]
    added, stream = _added(chain, streams, ends)
    if added is None:
        added, stream = _added(chain, [x], ends)  # the stream is what the sub-layer reads: its norm comes after
        norm = None if added is not None else norm
    if added is None:
        added = next((one for one in reversed(chain) if not is_norm(one.module)), last)
    chain = chain[: chain.index(added) + 1]
    if _wraps(added, last) and chain[-2] is not last:
        added = next(one for one in reversed(chain) if not _wraps(one, last))
    dropped = all(one is last or is_dropout(one.module) or _wraps(one, last) for one in chain)
    after = None
    if norm is None and stream is not None:
        after = next((one.path for one, read in later if is_norm(one.module) and equal(read, stream)), None)
    return Joint(norm.path if norm else None, after, added.path, dropped)


def _added(
    chain: list[Call], streams: list[Tensor], ends: list[tuple[Call, Tensor | None]]
) -> tuple[Call | None, Tensor | None]:
    """Return the last call of a chain whose result is added to one of the streams, and the sum."""
    for call in reversed(chain):
        stream = _sum(streams, call.gave, ends)
        if stream is not None:
            return call, stream
    return None, None


def _called_once(calls: list[Call]) -> list[Call]:
    """Leave out modules that a block calls several times: a change there would be made several times."""
    times = Counter(one.path for one in calls)
    return [one for one in calls if times[one.path] == 1]


def is_norm(module: nn.Module) -> bool:
    """Return whether a module is a normalisation, by its class's name."""
    return "norm" in type(module).__name__.lower() and not list(module.children())


def is_dropout(module: nn.Module) -> bool:
    """Return whether a module does nothing in evaluation."""
    return "drop" in type(module).__name__.lower() or isinstance(module, nn.Identity)


def _wraps(outer: Call, inner: Call) -> bool:
    return outer.start < inner.start and outer.end > inner.end


def _before(call: Call, time: int) -> bool:
    return call.end != -1 and call.end <= time + 1


def _chain(calls: list[Call], last: Call) -> list[Call]:
    """Return ``last`` and every call after it that only hands on or reshapes what it gave, to the last one."""
    chain, value = [last], last.gave
    block = calls[0]
    for call in sorted(calls, key=lambda one: one.end):
        if call.end <= last.end or call is block or call.gave is None or value is None:
            continue
        reads_it = call.start > last.end and equal(call.read, value) and not list(call.module.children())
        if (reads_it and call.gave.numel() == value.numel()) or (_wraps(call, last) and equal(call.gave, value)):
            chain.append(call)
            value = call.gave
    return chain


def _sum(bases: list[Tensor], part: Tensor | None, ends: list[tuple[Call, Tensor | None]]) -> Tensor | None:
    if part is None:
        return None
    for base in bases:
        if base.numel() != part.numel():
            continue
        total = base.reshape(part.shape).to(part.device) + part
        for _, end in ends:
            if equal(end, total):
                return end
    return None
