"""What a run says while it works, to whoever asked: plain values, never a progress bar."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

Phase = Literal["prepare", "attach", "train", "evaluate", "save", "done"]


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run is.

    Attributes:
        phase: what it does now.
        step, total: how far the phase is, where it can be counted; else 0 and None.
        values: what was logged at this step, such as ``loss``.
        note: something the user should know, once, such as how many inputs were cut.
    """

    phase: Phase
    step: int = 0
    total: int | None = None
    values: dict[str, float] = field(default_factory=dict)
    note: str = ""


Listener = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """Listen to nothing."""
    del progress
