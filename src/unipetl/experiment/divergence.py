"""Runs whose loss is no number: they have a score, and it says nothing of their method."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from unipetl.experiment.directory import RunResult

#: What a score of a diverged run is worth, for tables that mark one.
WORTH = "the score says nothing of the method. A lower learning rate may help."
MEANING = f"Diverged: after training the loss is not a number, so {WORTH}"


def diverged(result: RunResult) -> bool:
    """Say whether a run trained a model whose loss on the evaluation data is no number (null in its file)."""
    return result.parameters > 0 and "loss" in result.metrics and not _finite(result.metrics["loss"])


def mark(count: int, runs: int) -> str:
    """Return what stands behind a score of which ``count`` of ``runs`` runs diverged: nothing for none."""
    return f" ({count} of {runs} diverged)" if count else ""


def loss_note(log: Iterable[Mapping[str, Any]], result: RunResult) -> str:
    """Return a sentence on how often a run's loss was no number; nothing where it always was one.

    Args:
        log: the rows of its ``log.jsonl``.
        result: what it found.
    """
    losses = [row["loss"] for row in log if "loss" in row]
    bad = sum(not _finite(one) for one in losses)
    last = "loss" in result.metrics and not _finite(result.metrics["loss"])
    parts = [f"at {bad} of {len(losses)} logged steps"] if bad else []
    parts += ["in the final evaluation"] if last else []
    if not parts:
        return ""
    found = f"The loss is not a number {' and '.join(parts)}"
    if diverged(result):
        return f"{found}: the training diverged, and {WORTH}"
    return f"{found}."


def _finite(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
