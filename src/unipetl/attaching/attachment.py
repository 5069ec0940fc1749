"""Attach, detach, switch: the only functions that change a live model.

Each is all or nothing: if anything fails, the model is left exactly as it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from unipetl.architectures import Architecture
from unipetl.attaching.build import build, hang, unhang
from unipetl.attaching.install import install
from unipetl.attaching.room import refuse_without_room
from unipetl.attaching.state import (
    Record,
    State,
    own_parameters,
    retie,
    stack_of,
    state_of,
    swap,
    take_over,
    trained_tensors,
    untie,
)
from unipetl.errors import AttachError
from unipetl.method import Method
from unipetl.planning import Plan, plan
from unipetl.planning.trained import STATE


class Attachment:
    """A handle on one attachment of one model. It owns nothing: everything is in the model."""

    def __init__(self, model: nn.Module, name: str) -> None:
        self.model = model
        self.name = name

    def _record(self) -> Record:
        return state_of(self.model).find(self.name)

    @property
    def method(self) -> Method:
        """The method attached."""
        return self._record().plan.method

    @property
    def plan(self) -> Plan:
        """Where every change is."""
        return self._record().plan

    @property
    def active(self) -> bool:
        """Whether the model computes with it now."""
        return self._record().active

    def tensors(self) -> dict[str, Tensor]:
        """Return every trained tensor under the name it has in a saved file."""
        return trained_tensors(self.model, self._record())

    def detach(self) -> None:
        """Remove it; see [detach][unipetl.detach]."""
        detach(self.model, self.name)

    def __str__(self) -> str:
        """Return the plan as a table."""
        return str(self.plan)

    def __repr__(self) -> str:
        """Return the handle in one line."""
        state = "active" if self.active else "not active"
        return f"<Attachment {self.name!r}: {self.plan.parameters:,} parameters in {self.plan.model_class}, {state}>"


def attach(
    model: nn.Module,
    method: Method | str,
    *,
    name: str = "default",
    seed: int = 0,
    train_head: bool = True,
    architecture: Architecture | None = None,
) -> Attachment:
    """Attach ``method`` to ``model`` in place.

    The model keeps its class, its modules and its parameters' names. Its own parameters are frozen, but for
    those that the method trains and the task head. With several attachments the new one is stacked on the
    active ones.

    Args:
        model: a transformers model (or any module, with ``architecture``).
        method: a method or its text notation, such as ``"lora(rank=8)"``.
        name: the attachment's name; anything printable.
        seed: initial values depend on it and on the places' names alone.
        train_head: whether the head of a classification-like model is trained too. The released code of He et
            al. 2022 leaves RoBERTa's randomly initialised head frozen; ``False`` does the same.
        architecture: a table for a family that unipetl does not know.

    Returns:
        A handle. Everything can also be done with the model and the name.

    Raises:
        PlanError: the method makes no sense on this model.
        AttachError: the name is taken, there is no memory for the parameters, or two active attachments would
            train the same ones.
    """
    state = state_of(model)
    state.refuse_while_routed("attach()")
    if not (isinstance(name, str) and name and name.isprintable()):  # type: ignore[redundant-expr]
        raise AttachError(f"name: expected printable text, found {name!r}.")
    if name in state.records:
        raise AttachError(f"the model already has an attachment {name!r}; detach it first or choose another name.")
    made = plan(method, model, architecture=architecture, train_head=train_head)
    refuse_without_room(made, model)
    _refuse_shared_training(state, made)
    record = Record(name=name, plan=made, seed=seed, active=False)
    own = own_parameters(model)
    flags = {} if state.records else {name: parameter.requires_grad for name, parameter in own.items()}
    before_order = list(state.order)
    tied = [name for name, _ in made.trained if name not in own]
    installing = False
    try:
        build(model, made, record)
        untie(model, state, tied)
        take_over(model, record)
        hang(model, made, record)
        if not state.records:
            state.flags = flags
            for parameter in own_parameters(model).values():
                parameter.requires_grad_(False)
                parameter.grad = None  # an optimizer steps whatever has a gradient, frozen or not
        _switch(model, record)
        state.records[name] = record
        state.order.append(name)
        model.__dict__[STATE] = state
        installing = True
        install(model, state)
    except BaseException:
        state.records.pop(name, None)
        state.order = before_order
        if record.active:
            _switch(model, record)
        unhang(model, record)
        if installing:
            install(model, state)
        retie(model, state, [name for name in tied if name in state.untied])
        if not state.records:
            for parameter_name, parameter in own_parameters(model).items():
                parameter.requires_grad_(flags[parameter_name])
            model.__dict__.pop(STATE, None)
        raise
    return Attachment(model, name)


def _refuse_shared_training(state: State, made: Plan) -> None:
    wanted = {name for name, _ in made.trained}
    for record in state.records.values():
        both = sorted(wanted & set(record.parked)) if record.active else []
        if both:
            raise AttachError(
                f"the active attachment {record.name!r} trains {both[0]!r}"
                + (f" and {len(both) - 1} more" if len(both) > 1 else "")
                + " as well. Call unipetl.activate(model, None) first to switch between them, or attach with "
                "train_head=False to stack them."
            )


def detach(model: nn.Module, name: str | None = None) -> None:
    """Remove an attachment; with the last one the model is bit for bit what it was, ``requires_grad`` flags included.

    Args:
        model: the model.
        name: which one; None if there is only one.

    Raises:
        AttachError: there is no such attachment.
    """
    state = state_of(model)
    state.refuse_while_routed("detach()")
    record = state.find(name)
    if record.active:
        _switch(model, record)
    del state.records[record.name]
    state.order.remove(record.name)
    unhang(model, record)
    install(model, state)
    still = {trained for other in state.records.values() for trained in other.parked}
    retie(model, state, [name for name in state.untied if name not in still])
    if not state.records:
        for parameter_name, parameter in own_parameters(model).items():
            parameter.requires_grad_(state.flags.get(parameter_name, parameter.requires_grad))
            parameter.grad = None
        model.__dict__.pop(STATE, None)


def activate(model: nn.Module, names: str | Sequence[str] | None) -> None:
    """Choose what the model computes with: one attachment, several stacked in order, or None.

    None gives the bare model, exactly. Nothing is copied, and no ``requires_grad`` is changed: of the model's own
    parameters that attachments train (biases, a head) each attachment has its own, and the one in force is in the
    model.

    Raises:
        AttachError: a name is unknown, or two of them train the same parameters of the model.
    """
    state = state_of(model)
    state.refuse_while_routed("activate()")
    chosen = stack_of(names, "names:")
    records = [state.find(name) for name in chosen]
    if len(set(chosen)) != len(chosen):
        raise AttachError(f"names: an attachment stands there twice: {list(chosen)!r}.")
    refuse_shared(records)
    for record in state.records.values():
        if record.active and record not in records:
            _switch(model, record)
    for record in records:
        if not record.active:
            _switch(model, record)
    state.order = [*chosen, *(name for name in state.order if name not in chosen)]
    install(model, state)


def refuse_shared(records: Sequence[Record]) -> None:
    """Raise if two attachments that are to be stacked train the same parameters of the model.

    Raises:
        AttachError: they do.
    """
    owners: dict[str, str] = {}
    for record in records:
        for parameter in record.parked:
            if parameter in owners:
                raise AttachError(
                    f"attachments {owners[parameter]!r} and {record.name!r} both train {parameter!r}; "
                    "activate one of them."
                )
            owners[parameter] = record.name


def _switch(model: nn.Module, record: Record) -> None:
    """Put an attachment in force, or out."""
    swap(model, record)
    record.active = not record.active


def attachments(model: nn.Module) -> tuple[Attachment, ...]:
    """Return a handle on every attachment of ``model``, in the order of stacking."""
    return tuple(Attachment(model, name) for name in state_of(model).order)


@contextmanager
def detached(model: nn.Module) -> Iterator[nn.Module]:
    """Compute with the bare model inside a ``with`` block."""
    before = [name for name in state_of(model).order if state_of(model).records[name].active]
    activate(model, None)
    try:
        yield model
    finally:
        activate(model, before)
