"""What a user may have switched on around a call, and would disturb one that is watched."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch


@contextmanager
def undisturbed() -> Iterator[None]:
    """Compute with gradients, in the tensors' own dtypes and on their own devices, whatever is in force outside.

    ``no_grad``, ``inference_mode``, autocasting and a default device are left aside for as long as this lasts.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for kind in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
            stack.enter_context(torch.autocast(kind, enabled=False))
        stack.enter_context(torch.device("cpu"))
        yield
