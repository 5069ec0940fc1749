"""Which rows of a batch belong to which attachments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from unipetl.errors import AttachError

#: Arguments of a model whose first axis is the batch, in the order in which they are looked for.
BATCHED = ("input_ids", "inputs_embeds", "input_features", "input_values", "decoder_input_ids", "decoder_inputs_embeds")


@dataclass
class Rows:
    """The stacks of attachments of every row, and the call under way.

    Attributes:
        stacks: for every row of the batch the attachments it is computed with, in order.
        generating: whether ``generate`` is at work, which computes several rows for each one of the batch.
        batch: the number of rows in the stack under way; None before any.
        count: the number of rows named.
    """

    stacks: tuple[tuple[str, ...], ...]
    generating: bool = False
    batch: int | None = None
    count: int = field(init=False)

    def __post_init__(self) -> None:
        """Count the rows: compiled code may depend on their number, and must not on their names."""
        self.count = len(self.stacks)

    def each(self, size: int) -> int:
        """Return how many neighbours of ``size`` rows belong to each one named (beams, choices, windows).

        Raises:
            AttachError: they cannot be shared out.
        """
        whole = self.count if self.batch is None else self.batch
        if size == 0 or size % whole:
            raise AttachError(
                f"routed(): a module was given {size} rows where the batch has {whole}, so it is not known which row "
                "belongs to which attachment (a mixture's experts see tokens and not rows). What works: attachments "
                "at other places, or one activate() and one call for each attachment."
            )
        return size // self.count

    def split(self, h: Tensor) -> Tensor:
        """Map (rows, ..., features) to (rows named, vectors, features), and numbers of tokens (rows, ...) likewise."""
        self.each(h.shape[0])
        return h.reshape(self.count, -1, h.shape[-1]) if h.is_floating_point() else h.reshape(self.count, -1)

    def begin(self, size: int) -> None:
        """Note the number of rows that a stack is called with.

        Raises:
            AttachError: they cannot be shared out.
        """
        self.batch = None
        if size % self.count:
            raise AttachError(self._wrong(size))
        self.batch = size

    def check(self, size: int) -> None:
        """Compare the batch of a call of the whole model with what was named.

        Raises:
            AttachError: they differ.
        """
        if size != self.count and not (self.generating and size % self.count == 0):
            raise AttachError(self._wrong(size))

    def _wrong(self, size: int) -> str:
        return f"routed(): {self.count} rows were named, and the batch has {size}; name each row once, in order."


def places(rows: Sequence[int], each: int, device: torch.device) -> Tensor:
    """Return the indices (len(rows) * each,) of the neighbours that belong to ``rows``."""
    index = torch.tensor(rows, device=device)
    return index if each == 1 else (index[:, None] * each + torch.arange(each, device=device)).flatten()


def size_of(names: Sequence[str], args: Sequence[Any], kwargs: Mapping[str, Any]) -> int | None:
    """Return the number of rows among the arguments of a model or a stack, or None if none of them says it."""
    found = {**dict(zip(names, args, strict=False)), **kwargs}
    for name in BATCHED:
        if isinstance(found.get(name), Tensor):
            return int(found[name].shape[0])
    pixels = found.get("pixel_values")
    if isinstance(pixels, Tensor) and pixels.dim() in (4, 5):
        return int(pixels.shape[0])
    memory = found.get("encoder_outputs")
    return int(memory[0].shape[0]) if memory is not None and isinstance(memory[0], Tensor) else None


@dataclass
class CheckBatch:
    """Forward pre-hook on the model: compares its batch with the rows named. No stack is under way then."""

    rows: Rows
    names: tuple[str, ...]

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Check, and forget the call before."""
        self.rows.batch = None
        size = size_of(self.names, args, kwargs)
        if size is not None:
            self.rows.check(size)


@dataclass
class BeginStack:
    """Forward pre-hook on a stack: notes how many rows it computes, which beams multiply."""

    rows: Rows
    names: tuple[str, ...]

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note it."""
        size = size_of(self.names, args, kwargs)
        if size is None:
            first = next((one for one in (*args, *kwargs.values()) if isinstance(one, Tensor)), None)
            size = None if first is None else int(first.shape[0])
        if size is not None:
            self.rows.begin(size)


@dataclass
class Generating:
    """Stands before ``generate`` while rows are routed: there, several rows belong to each one named."""

    rows: Rows
    real: Any

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Generate."""
        size = size_of(("inputs",), args, {**kwargs, "input_ids": kwargs.get("inputs", kwargs.get("input_ids"))})
        if size is None and args and isinstance(args[0], Tensor):
            size = int(args[0].shape[0])
        if size is not None:
            self.rows.check(size)
        before, self.rows.generating = self.rows.generating, True
        try:
            return self.real(*args, **kwargs)
        finally:
            self.rows.generating = before
