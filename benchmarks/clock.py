"""How long a piece of work takes, by three clocks."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

import torch

Seconds = dict[str, float]  # "wall", "cpu" (all threads of the process), and on an accelerator "device" (its events)


def timed(work: Callable[[], Any], device: str) -> Seconds:
    """Do the work once and return its seconds. The garbage collector waits: no one pays for another's garbage."""
    on_device = device != "cpu"
    gc.disable()
    try:
        if on_device:
            first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            torch.cuda.synchronize()
            first.record()
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        if on_device:
            last.record()
            torch.cuda.synchronize()
        found = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        if on_device:
            found["device"] = first.elapsed_time(last) / 1e3
    finally:
        gc.enable()
    return found


def main_clock(device: str) -> str:
    """The clock that counts: the process's own on a CPU, where other work would disturb the wall's."""
    return "cpu" if device == "cpu" else "wall"
