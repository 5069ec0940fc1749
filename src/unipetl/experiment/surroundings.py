"""What a run ran on, and how much memory it took at its highest."""

from __future__ import annotations

import os
import platform
import re
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

#: What results can depend on; those that are not installed are left out.
PACKAGES = (
    *("unipetl", "torch", "transformers", "accelerate", "datasets", "safetensors", "numpy"),
    *("rouge-score", "sacrebleu", "sacremoses", "scipy"),
)
_STATUS = Path("/proc/self/status")


def describe(seed: int) -> dict[str, Any]:
    """Return versions, machine, threads and seed as JSON-ready data."""
    import torch

    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.machine(),
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "seed": seed,
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
    }


def forget_peak_memory() -> None:
    """Let the highest use of memory be counted from now on, where the system can."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):  # not Linux, or not allowed: the peak is then the process's, which is fresh in a comparison
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_memory() -> int:
    """Return the highest use of memory in bytes: the accelerator's if there is one, else this process's.

    The process's is its resident set, Python and torch included.
    """
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    with suppress(OSError):
        found = re.search(r"^VmHWM:\s+(\d+) kB", _STATUS.read_text(encoding="utf-8"), re.MULTILINE)
        if found:
            return int(found[1]) * 1024
    import resource

    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(usage) * (1 if sys.platform == "darwin" else 1024)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
