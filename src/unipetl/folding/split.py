"""An activation that is one function on the first hidden units and another on those that folding has added."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from unipetl.forms.bottleneck import ACTIVATIONS


class SplitActivation(nn.Module):
    """``[σ_0(z_0), σ_1(z_1), ...]``, the parts of z next to each other.

    Args:
        own: the module's activation before folding, for the first part.
        parts: how many features each part has, and the name of its activation; the first has none.
    """

    def __init__(self, own: nn.Module, parts: Sequence[tuple[int, str]]) -> None:
        super().__init__()
        self.own = own
        self.parts = tuple(parts)

    def forward(self, z: Tensor) -> Tensor:
        """Map (..., sum of the parts) to the same shape."""
        pieces = torch.split(z, [size for size, _ in self.parts], dim=-1)
        rest = [ACTIVATIONS[name](piece) for piece, (_, name) in zip(pieces[1:], self.parts[1:], strict=True)]
        return torch.cat([self.own(pieces[0]), *rest], dim=-1)

    def extra_repr(self) -> str:
        """Return the parts."""
        return ", ".join(f"{size} {name or 'own'}" for size, name in self.parts)
