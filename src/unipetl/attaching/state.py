"""What a model with attachments carries: one plain object, so that it is copied and pickled with the model."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from unipetl.attaching.ports import Change
from unipetl.errors import AttachError, unknown
from unipetl.forms import Delta
from unipetl.planning import Plan
from unipetl.planning.trained import STATE

#: Name of the child module that holds the changes, in every module that has some.
CHILD = "unipetl"


class Holder(nn.Module):
    """An empty module: a named place in the module tree."""


@dataclass
class Record:
    """One attachment.

    Attributes:
        changes: placement key -> its module; ``shared``: group key -> its module.
        parked: name of a trained parameter of the model -> the values it does not have now: the
            original ones while the attachment is active, the trained ones while it is not.
        loaded_from: the folder it was loaded from, for messages.
    """

    name: str
    plan: Plan
    seed: int
    changes: dict[str, Change] = field(default_factory=dict)
    shared: dict[str, Delta] = field(default_factory=dict)
    parked: dict[str, Tensor] = field(default_factory=dict)
    active: bool = True

    @property
    def key(self) -> str:
        """The name as part of a module path: letters and digits stay, anything else is spelt out."""
        return "at_" + re.sub(r"[^0-9A-Za-z]", lambda found: f"_{ord(found.group()):x}_", self.name)


@dataclass
class State:
    """Every attachment of one model, in the order of stacking.

    Attributes:
        flags: the model's own ``requires_grad``, before the first attachment.
        untied: name of a parameter that is trained apart from the one it is tied to -> that one.
    """

    records: dict[str, Record] = field(default_factory=dict)
    flags: dict[str, bool] = field(default_factory=dict)
    untied: dict[str, nn.Parameter] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)

    def find(self, name: str | None) -> Record:
        """Return the attachment ``name``; None means the only one.

        Raises:
            AttachError: there is none of that name, or None is ambiguous.
        """
        if name is None:
            if len(self.records) == 1:
                return next(iter(self.records.values()))
            found = ", ".join(map(repr, self.records)) or "none"
            raise AttachError(f"which attachment? The model has {found}; pass name=.")
        if name not in self.records:
            raise AttachError(unknown("attachment", name, self.records))
        return self.records[name]


def state_of(model: nn.Module) -> State:
    """Return the state of ``model``; an empty one if it has no attachments."""
    state = model.__dict__.get(STATE)
    return state if isinstance(state, State) else State()


def untie(model: nn.Module, state: State, names: Iterable[str]) -> None:
    """Give tied parameters values of their own, equal to those they share."""
    for name in names:
        path, _, last = name.rpartition(".")
        owner = model.get_submodule(path)
        tied = owner.get_parameter(last)
        state.untied[name] = tied
        setattr(owner, last, nn.Parameter(tied.detach().clone(), requires_grad=False))


def retie(model: nn.Module, state: State, names: Iterable[str]) -> None:
    """Undo [untie][]: the parameters are again the very objects they were."""
    for name in names:
        path, _, last = name.rpartition(".")
        setattr(model.get_submodule(path), last, state.untied.pop(name))


def own_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the model's own parameters, without those of attachments."""
    return {name: p for name, p in model.named_parameters() if f".{CHILD}." not in f".{name}"}


def trained_tensors(model: nn.Module, record: Record) -> dict[str, Tensor]:
    """Return every trained tensor of an attachment under its file name.

    Names: ``<site>/<label>/<parameter>`` for changes, ``shared/<group>/<parameter>`` for what they share, and
    ``model/<parameter>`` for the model's own.
    """
    tensors: dict[str, Tensor] = {}
    for key, change in record.changes.items():
        for name, parameter in change.named_parameters():
            tensors[f"{key}/{name.removeprefix('delta.')}"] = parameter
    for key, shared in record.shared.items():
        for name, parameter in shared.named_parameters():
            tensors[f"shared/{key}/{name}"] = parameter
    own = own_parameters(model)
    for name, _ in record.plan.trained:
        tensors[f"model/{name}"] = own[name] if record.active else record.parked[name]
    return tensors


def swap(model: nn.Module, record: Record) -> None:
    """Exchange the model's trained parameters with the parked values."""
    own = own_parameters(model)
    with torch.no_grad():
        for name, parked in record.parked.items():
            current = own[name].detach().clone()
            own[name].copy_(parked)
            record.parked[name] = current
