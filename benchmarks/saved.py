"""Bytes that a forward pass keeps for its backward pass, and the most bytes that are alive in a step."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile


def saved_bytes(work: Callable[[], torch.Tensor], without: Iterable[torch.Tensor]) -> int:
    """Return the bytes of the distinct storages that the graph of ``work``'s result holds for backward.

    A storage counts once and whole, however many views of it are saved. Those of ``without`` (parameters, which are
    there anyway) do not count. The graph is walked, as hooks on saved tensors would change what a method saves. What a
    function of its own keeps without telling autograd is not seen: see alive.
    """
    known = {one.untyped_storage().data_ptr() for one in without}
    kept: dict[int, int] = {}
    result = work()  # named, so that its graph lives while storages are counted
    for node in functions(result.grad_fn):
        for name in dir(node):
            if name.startswith("_raw_saved_"):
                found = getattr(node, name)
                for one in found if isinstance(found, (list, tuple)) else [found]:
                    tensor = getattr(one, "data", None)
                    if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() not in known:
                        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
    return sum(kept.values())


def functions(last: Any) -> set[Any]:
    """Return every function of the graph that ends in ``last``."""
    seen: set[Any] = set()
    todo = [last]
    while todo:
        node = todo.pop()
        if node is not None and node not in seen:
            seen.add(node)
            todo += [before for before, _ in node.next_functions]
    return seen


def alive(work: Callable[[], Any], device: str) -> tuple[int, int]:
    """Return the bytes that ``work`` leaves alive, its result among them, and the most that were alive meanwhile.

    On a CPU by every allocation and release that torch reports, which no other process can disturb; on an accelerator
    by its allocator's own count.
    """
    if device != "cpu":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        result = work()
        torch.cuda.synchronize()
        left, most = torch.cuda.memory_allocated() - before, torch.cuda.max_memory_allocated() - before
        del result
        return left, most
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        result = work()
    events = [one for one in seen.profiler.kineto_results.events() if one.name() == "[memory]"]
    now = most = 0
    for one in sorted(events, key=lambda event: event.start_ns()):
        now += one.nbytes()
        most = max(most, now)
    del result
    return now, most
