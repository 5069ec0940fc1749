"""The tensors of a file, taken out one by one, so that what is missing or left over can be said."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from unipetl.errors import InteropError, nearest
from unipetl.interop.adapterhub.layout import Layout


class Pool:
    """The tensors of one adapter by their names relative to the base model."""

    def __init__(self, tensors: Mapping[str, Tensor], name: str, layout: Layout, where: str) -> None:
        self.name, self.where = name, where
        self._left: dict[str, Tensor] = {}
        for key, value in tensors.items():
            short = layout.relative(key)
            if short in self._left:
                raise InteropError(f"{where}: {key!r} stands there twice, with and without the base model's name.")
            self._left[short] = value

    def has(self, key: str) -> bool:
        """Return whether a tensor is there."""
        return key in self._left

    def take(self, key: str) -> Tensor:
        """Take a tensor out.

        Raises:
            InteropError: it is not there; with the near match.
        """
        if key not in self._left:
            near = nearest(key, self._left)
            hint = f" Nearest of those left: {near!r}." if near else ""
            raise InteropError(
                f"{self.where}: tensor {key!r} is missing, which the config asks for on this model.{hint}"
            )
        return self._left.pop(key)

    def take_copies(self, kind: str, group: str) -> dict[str, Tensor]:
        """Take out what stands under ``kind.NAME.group.`` anywhere: the library writes it once for every layer.

        Raises:
            InteropError: it is nowhere, or two copies differ.
        """
        pattern = re.compile(rf"(?:^|.*\.){re.escape(kind)}\.{re.escape(self.name)}\.{re.escape(group)}\.(.+)$")
        found: dict[str, Tensor] = {}
        for key in list(self._left):
            match = pattern.match(key)
            if match is None:
                continue
            value, part = self._left.pop(key), match.group(1)
            if part in found and not torch.equal(found[part], value):
                raise InteropError(f"{self.where}: the copies of {kind}.{self.name}.{group}.{part} are not equal.")
            found[part] = value
        if not found:
            raise InteropError(f"{self.where}: no tensors of {kind}.{self.name}.{group}, which the config asks for.")
        return found

    def refuse_rest(self) -> None:
        """Raise unless everything was taken.

        Raises:
            InteropError: something is left over.
        """
        if self._left:
            first, more = min(self._left), len(self._left) - 1
            others = f" and {more} more" if more else ""
            raise InteropError(
                f"{self.where}: tensor {first!r}{others} is left over: with this config, on this model, the library "
                "has no such parameter. Is it the adapter of another architecture?"
            )
