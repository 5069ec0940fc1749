"""What a model with attachments carries: one plain object, so that it is copied and pickled with the model."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from unipetl.attaching.ports import Change
from unipetl.errors import AttachError, unknown
from unipetl.forms import Delta, HeadAttention, Shape
from unipetl.method import Modification
from unipetl.planning import Plan
from unipetl.planning.own import CHILD, own_parameters
from unipetl.planning.trained import STATE

__all__ = [
    "CHILD",
    "STATE",
    "Holder",
    "Record",
    "State",
    "own_parameters",
    "parked_beside",
    "retie",
    "state_of",
    "swap",
    "take_over",
    "trained_tensors",
    "untie",
]


class Holder(nn.Module):
    """An empty module: a named place in the module tree."""


@dataclass
class Record:
    """One attachment.

    Attributes:
        changes: placement key -> its module; ``shared``: group key -> its module.
        parked: name of a trained parameter of the model -> the one that is not in the model now: the
            original while the attachment is active, the trained one while it is not.
        owners: name of a trained parameter -> every name it has in the model, its own first.
    """

    name: str
    plan: Plan
    seed: int
    changes: dict[str, Change] = field(default_factory=dict)
    shared: dict[str, Delta] = field(default_factory=dict)
    parked: dict[str, nn.Parameter] = field(default_factory=dict)
    owners: dict[str, tuple[str, ...]] = field(default_factory=dict)
    active: bool = True

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the numbers of structures, which another process gives otherwise."""
        return {name: value for name, value in self.__dict__.items() if name != "structures"}

    @cached_property
    def structures(self) -> tuple[int, ...]:
        """For every placement a number that is equal exactly for changes of one structure at one place."""
        return tuple(_structure(one.site.name, one.modification, one.shape) for one in self.plan.placements)

    @cached_property
    def rotary(self) -> frozenset[str]:
        """The stacks in which learned keys, which carry no position, meet rotated queries."""
        return frozenset(
            one.site.stack_root
            for one in self.plan.placements
            if one.site.stack.rotary and isinstance(one.modification.form, HeadAttention)
        )

    @property
    def key(self) -> str:
        """The name as part of a module path: letters and digits stay, anything else is spelt out."""
        return "at_" + re.sub(r"[^0-9A-Za-z]", lambda found: f"_{ord(found.group()):x}_", self.name)


_STRUCTURES: dict[tuple[str, Modification, Shape], int] = {}


def _structure(*structure: *tuple[str, Modification, Shape]) -> int:
    return _STRUCTURES.setdefault(structure, len(_STRUCTURES))


@dataclass
class State:
    """Every attachment of one model, in the order of stacking.

    Attributes:
        flags: the model's own ``requires_grad``, before the first attachment.
        untied: name of a parameter that is trained apart from the one it is tied to -> that one.
        routing: the rows' attachments inside a ``with routed(...)`` block.
    """

    records: dict[str, Record] = field(default_factory=dict)
    flags: dict[str, bool] = field(default_factory=dict)
    untied: dict[str, nn.Parameter] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    routing: Any = None

    def refuse_while_routed(self, what: str) -> None:
        """Raise inside a ``with routed(...)`` block.

        Raises:
            AttachError: rows are routed.
        """
        if self.routing is not None:
            raise AttachError(f"{what}: rows are routed; leave the `with routed(...)` block first.")

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
        if not isinstance(name, str):
            raise AttachError(f"name: expected the name of an attachment, found {name!r}.")
        if name not in self.records:
            raise AttachError(unknown("attachment", name, self.records))
        return self.records[name]


def state_of(model: nn.Module) -> State:
    """Return the state of ``model``; an empty one if it has no attachments."""
    state = model.__dict__.get(STATE)
    return state if isinstance(state, State) else State()


def stack_of(entry: object, where: str) -> tuple[str, ...]:
    """Return the names of attachments that are to be stacked: of one, of several, or of none for None.

    Args:
        entry: what a caller gave.
        where: where it stands, for the message, such as "names: in row 2".

    Raises:
        AttachError: it is none of these.
    """
    if entry is None:
        return ()
    stack = (entry,) if isinstance(entry, str) else tuple(entry) if isinstance(entry, Iterable) else None
    if stack is None or not all(isinstance(name, str) for name in stack):
        raise AttachError(f"{where} expected the name of an attachment, a list of names, or None; found {entry!r}.")
    return stack


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
    for name, _ in record.plan.trained:
        tensors[f"model/{name}"] = model.get_parameter(name) if record.active else record.parked[name]
    return tensors


def take_over(model: nn.Module, record: Record) -> None:
    """Make an attachment's own copy of every parameter of the model that it trains; the model keeps its own."""
    if not record.plan.trained:
        return
    names: dict[int, list[str]] = {}
    for name, parameter in own_parameters(model, remove_duplicate=False).items():
        names.setdefault(id(parameter), []).append(name)
    for name, _ in record.plan.trained:
        own = model.get_parameter(name)
        record.parked[name] = nn.Parameter(own.detach().clone())
        record.owners[name] = (name, *(other for other in names[id(own)] if other != name))


def swap(model: nn.Module, record: Record) -> None:
    """Exchange the model's trained parameters with the parked ones: the objects, so no value is copied.

    What was parked while the model was moved follows it now.
    """
    for name in record.parked:
        current, parked = model.get_parameter(name), parked_beside(model, record, name)
        for path in record.owners[name]:
            owner, _, last = path.rpartition(".")
            model.get_submodule(owner)._parameters[last] = parked
        record.parked[name] = current


def parked_beside(model: nn.Module, record: Record, name: str) -> nn.Parameter:
    """Return the parked parameter ``name``, moved to where the one in the model is and to its dtype."""
    current, parked = model.get_parameter(name), record.parked[name]
    if parked.device != current.device or parked.dtype != current.dtype:
        parked.data = parked.data.to(current.device, current.dtype)
    return parked
