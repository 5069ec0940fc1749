"""The few ways in which folding changes a model. Each is done all at once, and gives back what undoes it.

What is replaced is kept as it is, never computed back: undoing restores the very objects, so every bit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn


class Edit(ABC):
    """Abstract: one change of a model."""

    @abstractmethod
    def apply(self, model: nn.Module) -> Edit:
        """Change ``model`` and return the edit that takes the change back."""


@dataclass(frozen=True, eq=False)
class SetParameter(Edit):
    """Makes ``value`` the parameter at ``path``; None takes it away (as a Linear without a bias has it)."""

    path: str
    value: nn.Parameter | None

    def apply(self, model: nn.Module) -> SetParameter:
        """Exchange the parameter; others that were tied to it keep the old one."""
        owner, _, name = self.path.rpartition(".")
        module = model.get_submodule(owner)
        before = module._parameters[name]
        module._parameters[name] = self.value
        return SetParameter(self.path, before)


@dataclass(frozen=True, eq=False)
class SetModule(Edit):
    """Makes ``module`` the module at ``path``."""

    path: str
    module: nn.Module

    def apply(self, model: nn.Module) -> SetModule:
        """Exchange the module."""
        owner, _, name = self.path.rpartition(".")
        parent = model.get_submodule(owner)
        before = parent._modules[name]
        assert before is not None
        parent._modules[name] = self.module
        return SetModule(self.path, before)


@dataclass(frozen=True, eq=False)
class SetAttribute(Edit):
    """Sets a plain attribute of the module at ``path``, such as ``out_features``."""

    path: str
    name: str
    value: Any

    def apply(self, model: nn.Module) -> SetAttribute:
        """Exchange the attribute."""
        module = model.get_submodule(self.path)
        before = module.__dict__[self.name]
        module.__dict__[self.name] = self.value
        return SetAttribute(self.path, self.name, before)


@dataclass(frozen=True, eq=False)
class SetConfig(Edit):
    """Sets one value of the model's config, such as ``intermediate_size``."""

    name: str
    value: Any

    def apply(self, model: nn.Module) -> SetConfig:
        """Exchange the value."""
        config: Any = model.config
        before = getattr(config, self.name)
        setattr(config, self.name, self.value)
        return SetConfig(self.name, before)


def apply_all(model: nn.Module, edits: Sequence[Edit]) -> list[Edit]:
    """Apply every edit; return those that undo them, in the order in which to do so.

    If one fails, those before it are taken back and the failure goes on.
    """
    undo: list[Edit] = []
    try:
        for edit in edits:
            undo.insert(0, edit.apply(model))
    except BaseException:
        for edit in undo:
            edit.apply(model)
        raise
    return undo
