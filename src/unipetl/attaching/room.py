"""Whether there is memory for what a plan adds: asked before anything is made, since asking for it could end us."""

from __future__ import annotations

import os

import torch
from torch import nn

from unipetl.errors import AttachError
from unipetl.files import memory_text
from unipetl.planning import Plan

FLOAT32 = 4  # bytes


def refuse_without_room(plan: Plan, model: nn.Module) -> None:
    """Refuse a plan whose values alone are more than all the memory of the model's device, or of this machine.

    Values are counted as float32, without gradients or an optimizer's state, so nothing that could be is refused.

    Raises:
        AttachError: with both sizes.
    """
    needed = FLOAT32 * plan.added_parameters
    place = next((one.device for one in model.parameters()), torch.device("cpu"))
    whole = total_memory(place)
    if whole is not None and needed > whole:
        raise AttachError(
            f"the method adds {plan.added_parameters:,} parameters to a model of {plan.base_parameters:,}: that takes "
            f"{memory_text(needed)}, and {place.type} has {memory_text(whole)} of memory. A smaller rank or length "
            "would do; unipetl.fit_budget (--budget) finds one."
        )


def total_memory(place: torch.device) -> int | None:
    """Return a device's whole memory in bytes; None where it has none, or does not say."""
    if place.type == "cuda":
        return int(torch.cuda.get_device_properties(place).total_memory)
    if place.type == "meta":
        return None
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not a POSIX system
        return None
