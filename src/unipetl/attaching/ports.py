"""Changes at the ends of modules: forward hooks that read h, compute every change, and put h' back.

One hook stands at each end of a module that is used. Everything it refers to is a module of the model or
plain data, so a model with hooks can be copied and pickled.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from unipetl.architectures import Columns
from unipetl.composition import Add, Multiply
from unipetl.forms import Delta
from unipetl.forms.form import plus
from unipetl.forms.recompute import is_transformed, recomputed
from unipetl.method import Modification


class Change(nn.Module):
    """A form's trainable part at one place, with the learned scale of its composition if it has one."""

    def __init__(self, modification: Modification, delta: Delta) -> None:
        super().__init__()
        self.modification = modification
        self.delta = delta
        learned = isinstance(modification.composition, Add) and modification.composition.scale == "learned"
        self.scale = nn.Parameter(torch.empty(1)) if learned else None

    def reset(self, generator: torch.Generator) -> None:
        """Draw the initial values; a learned scale starts at 1 (paper, section 4.5)."""
        self.delta.reset(generator)
        if self.scale is not None:
            nn.init.ones_(self.scale)

    def added(self, h: Tensor, x: Tensor, *, in_place: bool = False) -> Tensor:
        """Return ``h + s * delta(x)`` in the dtype of ``h``, the short way where nobody misses ``forward``."""
        delta = self.delta
        if delta._forward_hooks or delta._forward_pre_hooks or "forward" in delta.__dict__:
            return self.add_to(h, delta(x))
        return delta.added(h, x, self.factor, in_place=True) if in_place else delta.added(h, x, self.factor)

    def add_to(self, h: Tensor, change: Tensor) -> Tensor:
        """Return ``h + s * change`` in the dtype of ``h``; both of any equal shape."""
        return plus(h, change, self.factor)

    @property
    def factor(self) -> float | Tensor:
        """The scale s: a number, or the learned one."""
        if self.scale is not None:
            return self.scale
        composition = self.modification.composition
        scale = composition.scale if isinstance(composition, Add) else 1.0
        assert isinstance(scale, float)
        return scale


class Tape:
    """Carries a sub-layer's input x from where it is read to where the change joins."""

    def __init__(self) -> None:
        self.value: Tensor | None = None

    def __getstate__(self) -> dict[str, None]:
        """Leave the activation behind when the model is copied or pickled, even after a call that failed midway."""
        return {"value": None}

    def see(self, h: Tensor) -> None:
        """Keep what passes."""
        self.value = h

    def take(self) -> Tensor:
        """Return x and forget it, so that no activation outlives its layer."""
        value, self.value = self.value, None
        assert value is not None, "the place that reads x was not reached before the place where the change joins"
        return value


@dataclass
class Item:
    """One change: what it reads is a tape, the module's own input, or (both None) h itself."""

    change: Change
    tape: Tape | None = None
    own_input: bool = False
    norm: nn.Module | None = None


@dataclass
class Step:
    """The changes of one attachment to one representation; all of them read the same h.

    Attributes:
        rank: of the representation, in the order of the computation.
        columns: the part of the last axis that is the representation; None is all of it.
        level: the attachment's number in the order of stacking.
    """

    rank: int
    items: list[Item]
    columns: Columns | None = None
    level: int = 0

    def apply(self, h: Tensor, own_input: Tensor | None, *, spare: bool = False) -> Tensor:
        """Return the changed h (..., features): first every factor, then every addend; a ``spare`` h may be lost."""
        if self.columns is not None:
            return self.columns.replaced(h, self._change(self.columns.of(h), own_input))
        return self._change(h, own_input, spare=spare)

    def _change(self, h: Tensor, own_input: Tensor | None, *, spare: bool = False) -> Tensor:
        result, last = h, self.items[-1]
        for item in self.items:
            if isinstance(item.change.modification.composition, Multiply):
                factor = item.change.delta(h)
                with recomputed(result):
                    result = result * factor
        for item in self.items:
            if isinstance(item.change.modification.composition, Multiply):
                continue
            x = h if item.tape is None else item.tape.take()
            if item.own_input:
                assert own_input is not None
                x = own_input
            if item.norm is not None:
                x = item.norm.forward(x)
            if x.dim() != h.dim() and x.shape[:-1].numel() == h.shape[:-1].numel():
                x = x.reshape(*h.shape[:-1], x.shape[-1])  # Llama 4's mixture gives all tokens in one axis
            result = item.change.added(result, x, in_place=spare and item is last)  # others read h after this one
        return result


@dataclass
class InputHook:
    """Forward pre-hook: changes a module's first argument, then lets the tapes see it."""

    steps: list[Step] = field(default_factory=list)
    tapes: list[Tape] = field(default_factory=list)

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the arguments with h replaced, or None where nothing changes."""
        h = first_argument(args, kwargs)
        for step in self.steps:
            h = step.apply(h, None)
        for tape in self.tapes:
            tape.see(h)
        if not self.steps:
            return None
        return with_first_argument(args, kwargs, h)


@dataclass
class OutputHook:
    """Forward hook: changes a module's result (its first element, if it is a tuple)."""

    steps: list[Step] = field(default_factory=list)
    tapes: list[Tape] = field(default_factory=list)

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """Return the result with h replaced."""
        h = output[0] if isinstance(output, tuple) else output
        own_input = first_argument(args, kwargs)
        spare = not torch.is_grad_enabled() and is_spare(h, module, self)
        for step in self.steps:
            h = step.apply(h, own_input, spare=spare)
        for tape in self.tapes:
            tape.see(h)
        return (h, *output[1:]) if isinstance(output, tuple) else h


def is_spare(h: Tensor, module: nn.Module, hook: object) -> bool:
    """Return whether nobody but a module's first hook can hold its result: a fresh one, and seen by no one before."""
    if torch.compiler.is_compiling() or type(module) is not nn.Linear or "forward" in module.__dict__:
        return False
    if type(h) is not Tensor or next(iter(module._forward_hooks.values()), None) is not hook or is_transformed():
        return False
    return not torch.nn.modules.module._global_forward_hooks


def first_argument(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Return the hidden states among a module's arguments: the first, or the one of that name, or the first by name."""
    return args[0] if args else kwargs[_name_of_first(kwargs)]


def with_first_argument(
    args: tuple[Any, ...], kwargs: dict[str, Any], h: Tensor
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return a module's arguments with other hidden states."""
    if args:
        return (h, *args[1:]), kwargs
    return args, {**kwargs, _name_of_first(kwargs): h}


def _name_of_first(kwargs: dict[str, Any]) -> str:
    if "hidden_states" in kwargs:
        return "hidden_states"
    return next(name for name, value in kwargs.items() if isinstance(value, Tensor))
