"""Fold and unfold a live model. Each is all or nothing: if anything fails, the model is as it was.

Attachments leave the model as the places for them do: hooks and modules go, the new weights come. What they
replace, and the attachments themselves, are kept beside the model, so that unfolding puts back the very objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from unipetl.architectures import Architecture
from unipetl.attaching.build import hang, unhang
from unipetl.attaching.install import install, uninstall
from unipetl.attaching.state import CHILD, Holder, Record, State, own_parameters, state_of
from unipetl.errors import FoldError
from unipetl.folding.algebra import require_finite
from unipetl.folding.decide import Decision, decide
from unipetl.folding.edits import Edit, SetConfig, apply_all
from unipetl.folding.linear import dequantised, parameter_at
from unipetl.folding.report import Folding, Row, rows_of
from unipetl.folding.rewrite import Rewriting
from unipetl.folding.steps import Order, order_of
from unipetl.folding.targets import Anatomy
from unipetl.method import Method, Modification
from unipetl.planning import plan, sites_of
from unipetl.planning.places import labelled
from unipetl.planning.trained import STATE

#: Attribute of a folded model with what unfolding needs, the last fold last.
FOLDS = "_unipetl_folds"


@dataclass
class _Fold:
    """What one fold replaced: the edits that undo it, the attachments before it, and every flag."""

    state: State
    flags: dict[str, bool]
    places: list[tuple[nn.Module, Holder, dict[str, nn.Module | None]]]
    undo: list[Edit] = field(default_factory=list)
    left: list[Record] = field(default_factory=list)

    @classmethod
    def begin(cls, model: nn.Module, state: State) -> _Fold:
        """Remember where attachments hang, and the flags of the model's own parameters."""
        found = [(module, module._modules.get(CHILD)) for module in model.modules()]
        places = [(module, one, dict(one._modules)) for module, one in found if isinstance(one, Holder)]
        return cls(state, {name: p.requires_grad for name, p in own_parameters(model).items()}, places)


def examine(
    model: nn.Module,
    names: str | Sequence[str] | None = None,
    *,
    dequantize: bool = False,
    architecture: Architecture | None = None,
) -> Folding:
    """Say what [fold][] would do, without touching the model.

    Raises:
        FoldError: nothing active is asked to fold.
        AttachError: there is no attachment of a name.
    """
    work = _decide(model, names, dequantize=dequantize, architecture=architecture)
    if work.decision.packed:
        return work.report(["the weights that must be made dense first have not been read"], [])
    rewriting = Rewriting(work.anatomy, work.decision, work.occupied())
    edits = rewriting.compute(work.order)
    return work.report([*rewriting.not_plain, *_broken_ties(model, rewriting), *work.others()], edits)


def fold(
    model: nn.Module,
    names: str | Sequence[str] | None = None,
    *,
    partial: bool = False,
    plain: bool = False,
    dequantize: bool = False,
    keep: bool = True,
    architecture: Architecture | None = None,
) -> Folding:
    """Fold active attachments into the model's own weights: in evaluation the function stays, and its cost goes.

    What folds exactly: low-rank changes of any projection, factors, biases and other parameters trained in
    place; and a parallel bottleneck beside an FFN, which becomes more hidden units of it. ``docs/folding.md`` has
    the whole table.

    Args:
        model: a model with attachments.
        names: which of the active ones; None is all.
        partial: fold what can be folded and leave the rest attached, instead of refusing.
        plain: refuse unless the result is a plain model of its class, which ``save_pretrained`` writes and
            ``from_pretrained`` reads without unipetl. Otherwise a bottleneck whose activation is not the FFN's
            gets an FFN with two activations, which costs as little and is not plain.
        dequantize: replace quantised modules that are in the way by dense ones of the same values.
        keep: keep what is replaced, so that [unfold][] can restore it bit for bit. It costs its memory.
        architecture: a table for a family that unipetl does not know.

    Returns:
        What was folded into what.

    Raises:
        FoldError: something does not fold, with the reason, or has NaN or infinite values; the model is as it was.
        AttachError: there is no attachment of a name.
    """
    work = _decide(model, names, dequantize=dequantize, architecture=architecture)
    _refuse_rest(work, partial=partial, plain=plain)
    _refuse_not_finite(model, work)
    this = _Fold.begin(model, work.state)
    try:
        uninstall(model)
        for record in work.chosen:
            unhang(model, record)
        this.undo = apply_all(model, [dequantised(model, path) for path in work.decision.packed])
        rewriting = Rewriting(work.anatomy, work.decision, work.occupied())
        edits = [*rewriting.compute(work.order), *_untied(model, work)]
        not_plain = [*rewriting.not_plain, *_broken_ties(model, rewriting), *work.others()]
        if plain and not_plain:
            reasons = "; ".join(not_plain)
            raise FoldError(f"the folded model would be no plain model of its class: {reasons}. Nothing was touched.")
        this.undo = [*apply_all(model, edits), *this.undo]
        this.left = _leave(model, work, architecture)
    except BaseException:
        _restore(model, this)
        raise
    if keep:
        model.__dict__.setdefault(FOLDS, []).append(this)
    else:
        model.__dict__.pop(FOLDS, None)  # what earlier folds kept no longer fits
    return work.report(not_plain, edits)


def unfold(model: nn.Module) -> None:
    """Take the last [fold][] back: the model and its attachments are bit for bit what they were.

    Raises:
        FoldError: nothing was folded, what it replaced was not kept, or other attachments are in the way.
    """
    folds: list[_Fold] = model.__dict__.get(FOLDS, [])
    if not folds:
        raise FoldError(f"nothing to unfold: {type(model).__name__} was not folded, or with keep=False.")
    last = folds[-1]
    now = list(state_of(model).records.values())
    extra = [record.name for record in now if record not in last.left]
    gone = [record.name for record in last.left if record not in now]
    if extra or gone:
        do = f"detach {extra[0]!r} first" if extra else f"{gone[0]!r}, which the fold left attached, is gone"
        raise FoldError(f"the model has other attachments than after the fold: {do}.")
    for record in now:
        unhang(model, record)
    _restore(model, last)
    folds.pop()
    if not folds:
        del model.__dict__[FOLDS]


@dataclass
class _Work:
    """A fold that has been decided on, and not begun."""

    state: State
    chosen: list[Record]
    anatomy: Anatomy
    order: Order
    decision: Decision

    def rows(self) -> tuple[Row, ...]:
        trained = [(record.name, len(record.parked)) for record in self.chosen if record.parked]
        return rows_of(self.order, self.decision, trained)

    def staying(self) -> list[Row]:
        names = {record.name for record in self.chosen}
        return [row for row in self.rows() if row.reason and row.attachment in names]

    def occupied(self) -> set[tuple[str, str]]:
        """The ends of modules where a change stays, or would come back with an idle attachment."""
        ends: set[tuple[str, str]] = {(op.port.module, op.port.side) for op in self.decision.reasons}
        for record in self.state.records.values():
            if not record.active:
                ends |= {(one.site.value.module, one.site.value.side) for one in record.plan.placements}
        return ends

    def others(self) -> list[str]:
        """Why the model is not plain after this fold, whatever it does: other attachments, or quantised modules."""
        left = [record.name for record in self.state.records.values() if record not in self.chosen]
        reasons = [f"the attachment {name!r} is not folded; detach it first" for name in left]
        if getattr(getattr(self.anatomy.model, "config", None), "quantization_config", None) is not None:
            reasons.append("the model's config says that it is quantised")
        return reasons

    def report(self, not_plain: list[str], edits: Sequence[Edit]) -> Folding:
        settings = {edit.name: edit.value for edit in edits if isinstance(edit, SetConfig)}
        names = {record.name for record in self.chosen}
        rows = tuple(row for row in self.rows() if row.attachment in names)
        return Folding(rows, tuple(dict.fromkeys(not_plain)), settings)


def _decide(
    model: nn.Module, names: str | Sequence[str] | None, *, dequantize: bool, architecture: Architecture | None
) -> _Work:
    state = state_of(model)
    if state.routing is not None:
        raise FoldError("rows are routed; leave the `with routed(...)` block first.")
    active = [state.records[name] for name in state.order if state.records[name].active]
    wanted = [names] if isinstance(names, str) else names
    chosen = active if wanted is None else [state.find(name) for name in wanted]
    idle = [record.name for record in chosen if not record.active]
    if idle:
        raise FoldError(f"attachment {idle[0]!r} is not active, so the model does not compute it; activate it first.")
    if not chosen:
        found = "only inactive attachments" if state.records else "no attachment"
        raise FoldError(f"nothing to fold: {type(model).__name__} has {found}.")
    anatomy = Anatomy(model, sites_of(model, architecture))
    order = order_of(active)
    return _Work(state, chosen, anatomy, order, decide(anatomy, order, state, chosen, dequantize=dequantize))


def _refuse_rest(work: _Work, *, partial: bool, plain: bool) -> None:
    staying = work.staying()
    if not staying:
        return
    lines = "\n".join(f"- {row.what} at {row.where} of {row.attachment!r}: {row.reason}" for row in staying)
    nothing = not work.decision.targets and not any(record.parked for record in work.chosen)
    if not partial or nothing:
        hint = "" if nothing or plain else " Pass partial=True to fold the rest and leave these attached."
        raise FoldError(f"not everything folds:\n{lines}\nNothing was touched.{hint}")


def _refuse_not_finite(model: nn.Module, work: _Work) -> None:
    for op in work.decision.targets:
        require_finite(op)
    own = own_parameters(model)
    for record in work.chosen:
        for name in record.parked:
            if not bool(torch.isfinite(own[name]).all()):
                raise FoldError(
                    f"{name!r}, trained by attachment {record.name!r}, has NaN or infinite values. Nothing was folded."
                )


def _untied(model: nn.Module, work: _Work) -> list[Edit]:
    """A head that is trained apart from the embeddings it was tied to stays apart: the config must say so."""
    trained = {name for record in work.chosen for name in record.parked}
    tied = bool(getattr(getattr(model, "config", None), "tie_word_embeddings", False))
    return [SetConfig("tie_word_embeddings", False)] if tied and trained & set(work.state.untied) else []


def _broken_ties(model: nn.Module, rewriting: Rewriting) -> list[str]:
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    found = []
    for path in rewriting.modules():
        own, weight = parameter_at(model, path)
        owner = model.get_submodule(own.rpartition(".")[0])
        others = [name for name in names.get(id(weight), []) if name != own]
        tied = [name for name in others if model.get_submodule(name.rpartition(".")[0]) is not owner]
        if tied:
            found.append(f"{own!r} was tied to {tied[0]!r}, which keeps its values")
    return found


def _leave(model: nn.Module, work: _Work, architecture: Architecture | None) -> list[Record]:
    """Let the folded attachments go; return those that stay, with what is left of them."""
    old = work.state
    trained = {name for record in work.chosen for name in record.parked}
    state = State(flags=old.flags, untied={n: p for n, p in old.untied.items() if n not in trained})
    own = own_parameters(model)
    for record in old.records.values():
        left = _rest_of(model, work, record, architecture) if record in work.chosen else record
        if left is not None:
            state.records[record.name] = left
    state.order = [name for name in old.order if name in state.records]
    if state.records:
        for name in trained:
            own[name].requires_grad_(False)
        for record in work.chosen:
            if record.name in state.records:
                hang(model, state.records[record.name].plan, state.records[record.name])
        model.__dict__[STATE] = state
        install(model, state)
    else:
        model.__dict__.pop(STATE, None)
        for name, parameter in own.items():
            parameter.requires_grad_(old.flags.get(name, parameter.requires_grad))
            parameter.grad = None
    return list(state.records.values())


def _rest_of(model: nn.Module, work: _Work, record: Record, architecture: Architecture | None) -> Record | None:
    """Return what stays of an attachment: its modifications that did not fold, with the modules they have."""
    ops = [op for op in work.decision.reasons if op.record is record]
    if not ops:
        return None
    staying = {(op.placement.modification.representation.name, op.placement.label) for op in ops}
    method = Method(
        modifications=tuple(
            one
            for one, label in labelled(record.plan.method.modifications)
            if (one.representation.name, label) in staying
        )
    )
    made = plan(method, model, architecture=architecture, train_head=False)
    by_place = {(op.placement.site.name, _text(op.placement.modification)): op.change for op in ops}
    changes = {one.key: by_place[one.site.name, _text(one.modification)] for one in made.placements}
    shared = {group.key: record.shared[group.key] for group in made.groups}
    return Record(name=record.name, plan=made, seed=record.seed, changes=changes, shared=shared)


def _restore(model: nn.Module, fold: _Fold) -> None:
    """Undo the edits and put every attachment back."""
    for edit in fold.undo:
        edit.apply(model)
    model.__dict__[STATE] = fold.state
    for record in fold.state.records.values():
        unhang(model, record)
    for module, holder, children in fold.places:
        holder._modules = dict(children)
        module._modules[CHILD] = holder
    for name, parameter in own_parameters(model).items():
        parameter.requires_grad_(fold.flags[name])
    install(model, fold.state)


def _text(one: Modification) -> str:
    return Method(modifications=(one,)).canonical()
