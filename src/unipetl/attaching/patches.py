"""Changes of a convolution's result, place by place: every form reads a patch and changes a vector of channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from unipetl.attaching.ports import OutputHook, first_argument


@dataclass
class PatchHook(OutputHook):
    """Forward hook of a convolution: puts channels last for the changes, and back again."""

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """Return the result (..., channels, *positions) with the channels replaced."""
        assert isinstance(module, nn.modules.conv._ConvNd)
        axis = -1 - len(module.kernel_size)
        x = patches(module, first_argument(args, kwargs))
        h: Tensor = output.movedim(axis, -1)
        for step in self.steps:
            h = step.apply(h, x)
        for tape in self.tapes:
            tape.see(h)
        return h.movedim(-1, axis)


def patches(convolution: nn.modules.conv._ConvNd, x: Tensor) -> Tensor:
    """Map (..., channels, *size) to (..., *positions, channels * kernel): what the convolution multiplies.

    The order within a patch is that of the convolution's weight, flattened behind its first axis.
    """
    space = len(convolution.kernel_size)
    padding = [int(size) for size in convolution.padding]
    x = nn.functional.pad(x, [size for one in reversed(padding) for size in (one, one)]) if any(padding) else x
    first = x.dim() - space
    for axis, (size, step) in enumerate(zip(convolution.kernel_size, convolution.stride, strict=True)):
        x = x.unfold(first + axis, size, step)
    return x.movedim(-1 - 2 * space, -1 - space).flatten(-1 - space)
