"""Follows values and gradients through a trace: what is equal to what, and what acts on what directly."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from unipetl.architectures import Columns
from unipetl.inference.tracing import Call


def equal(first: Tensor | None, second: Tensor | None) -> bool:
    """Return whether two tensors hold the same values, in any shape of the same size and on any device.

    What rounding may change is measured by the mean size of the numbers, not by the largest one: the hidden vectors of
    large models have a few numbers a thousand times as large as the rest.
    """
    if first is None or second is None or first.numel() != second.numel():
        return False
    if not first.is_floating_point() or not second.is_floating_point():
        return False
    a, b = first.detach().flatten(), second.detach().flatten().to(first)
    return bool(torch.allclose(a, b, rtol=_tolerance(a), atol=_tolerance(a) * float(a.abs().mean() + 1e-30)))


def _tolerance(tensor: Tensor) -> float:
    return {torch.float64: 1e-10, torch.float32: 1e-5}.get(tensor.dtype, 2e-2)


def acting(target: Tensor, calls: Sequence[Call], weight: Tensor | None = None) -> dict[str, Tensor]:
    """Return which columns of the results of ``calls`` (linear maps) act directly on ``target``.

    Returns:
        Path -> gradient of a random weighting of ``target``, shaped like the map's result; none for maps that do
        not act on it.
    """
    if not target.requires_grad or not calls:
        return {}
    generator = torch.Generator().manual_seed(0)
    if weight is None:
        weight = torch.rand(target.shape, generator=generator, dtype=torch.float64).to(target) + 0.5
    leaves = [call.leaf for call in calls]
    total = (target * weight).sum()
    gradients: Any = torch.autograd.grad(total, leaves, retain_graph=True, allow_unused=True)  # type: ignore[arg-type]
    found = {call.path: gradient for call, gradient in zip(calls, gradients, strict=True) if gradient is not None}
    return {path: gradient for path, gradient in found.items() if gradient.abs().max() > 0}


def used_columns(gradient: Tensor) -> Tensor:
    """Return which of the last axis' columns have a gradient anywhere, (features,)."""
    return gradient.detach().abs().flatten(0, -2).amax(dim=0) > 0


def as_columns(used: Tensor) -> Columns | None:
    """Return the columns of a mask (features,) as runs; None if they are all, or lie in no even pattern.

    Raises:
        ValueError: they lie in no even pattern.
    """
    if bool(used.all()):
        return None
    places = used.nonzero().flatten().tolist()
    runs: list[list[int]] = []
    for place in places:
        if runs and place == runs[-1][-1] + 1:
            runs[-1].append(place)
        else:
            runs.append([place])
    sizes = {len(run) for run in runs}
    steps = {b[0] - a[0] for a, b in itertools.pairwise(runs)}
    if len(sizes) != 1 or len(steps) > 1:
        raise ValueError(f"columns in no even pattern: {runs[:4]}")
    return Columns(runs[0][0], len(runs[0]), len(runs), steps.pop() if steps else 0)


def inside(block: str, path: str) -> str:
    """Return the path of a module relative to the block that it is in."""
    return path.removeprefix(f"{block}.")
