"""Bytes that a forward pass keeps for its backward pass, and the most bytes that are alive in a step."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile


def saved_bytes(work: Callable[[], Any], without: Iterable[torch.Tensor]) -> int:
    """Return the bytes of the distinct storages that autograd saves while ``work`` runs.

    A storage counts once and whole, however many views of it are saved. Those of ``without`` (parameters, which are
    there anyway) do not count. What a function of its own keeps without telling autograd is not seen: see held_bytes.
    """
    known = {one.untyped_storage().data_ptr() for one in without}
    kept: dict[int, torch.UntypedStorage] = {}  # held, so that no address is used twice

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = work()  # named, so that its graph lives while storages are counted
    total = sum(one.nbytes() for one in kept.values())
    del result
    return total


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
