"""Which changes of a model fold, together: a change that stays may keep others from folding.

The unit is a modification: it folds at every place it is at, or at none, so that what stays attached is a
method again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import nn

from unipetl.attaching.state import Record, State
from unipetl.folding.linear import can_be_dense, parameter_at, why_unreadable, why_unreadable_parameter
from unipetl.folding.steps import Op, Order, Step
from unipetl.folding.targets import Anatomy, Target, target_of
from unipetl.forms import HeadAttention
from unipetl.insertion import Sequential


@dataclass(frozen=True)
class Decision:
    """What becomes of every change.

    Attributes:
        targets: the changes that fold, and into what.
        reasons: the changes that do not, and why.
        packed: quantised modules that are to be replaced by dense ones first.
    """

    targets: dict[Op, Target]
    reasons: dict[Op, str]
    packed: tuple[str, ...]


def decide(anatomy: Anatomy, order: Order, state: State, chosen: Sequence[Record], *, dequantize: bool) -> Decision:
    """Return what folds when the attachments ``chosen`` are asked to."""
    targets: dict[Op, Target] = {}
    reasons: dict[Op, str] = {}
    packed: set[str] = set()
    for op in order.ops:
        if op.record not in chosen:
            reasons[op] = f"it belongs to the attachment {op.record.name!r}, which is not asked to fold"
            continue
        found = target_of(op, anatomy)
        why = found if isinstance(found, str) else _why_not_weights(anatomy, op, found, packed, dequantize=dequantize)
        if isinstance(found, Target) and why is None:
            targets[op] = found
        else:
            reasons[op] = why or str(found)
    idle = [record for record in state.records.values() if not record.active]
    while True:
        known = len(reasons)
        for op, why in _conflicts(anatomy, order, idle, targets, reasons):
            reasons.setdefault(op, why)
        _spread(order, reasons)
        if len(reasons) == known:
            break
    kept = {op: target for op, target in targets.items() if op not in reasons}
    used = {path for op, target in kept.items() for path in modules_of(anatomy, op, target)}
    return Decision(kept, reasons, tuple(sorted(packed & used)))


def modules_of(anatomy: Anatomy, op: Op, target: Target) -> tuple[str, ...]:
    """Return the paths of the modules whose weights a change folds into."""
    if target.side != "units":
        return (target.module,)
    ffn = anatomy.feed_forward(op.placement.site)
    assert not isinstance(ffn, str)
    return ffn.projections


def _why_not_weights(anatomy: Anatomy, op: Op, target: Target, packed: set[str], *, dequantize: bool) -> str | None:
    if target.side == "norm":
        return None
    for path in modules_of(anatomy, op, target):
        if op.placement.site.stacked is not None:
            why = why_unreadable_parameter(parameter_at(anatomy.model, path)[1])
            if why is not None:
                return f"{path!r}: {why}"
            continue
        module = anatomy.model.get_submodule(path)
        if _places(anatomy.model, module) > 1 and op.representation != "embedding":  # which is one place for all
            return f"{path!r} is one module at several places of the model; folding would change all of them"
        why = why_unreadable(module)
        if why is None:
            continue
        possible = can_be_dense(module)
        if not (dequantize and possible):
            hint = "; dequantize=True (--dequantize) replaces it by a dense one" if possible else ""
            return f"{path!r}: {why}{hint}"
        packed.add(path)
    return None


def _places(model: nn.Module, module: nn.Module) -> int:
    return sum(1 for _, one in model.named_modules(remove_duplicate=False) if one is module)


def _spread(order: Order, reasons: dict[Op, str]) -> None:
    """Keep a whole modification from folding where it does not fold somewhere."""
    first: dict[tuple[str, str, str], Op] = {}
    for op in order.ops:
        if op in reasons:
            first.setdefault(_modification(op), op)
    for op in order.ops:
        cause = first.get(_modification(op))
        if cause is not None and op not in reasons:
            reasons[op] = f"at {cause.placement.site.name!r} {reasons[cause]}"


def _modification(op: Op) -> tuple[str, str, str]:
    return op.record.name, op.representation, op.placement.label


def chains(anatomy: Anatomy, order: Order) -> Iterable[list[Step]]:
    """Yield, for the result of every linear module (or part of a fused one), the steps that change it, in order.

    What is added at the end of a sub-layer, after a dropout, is added to the result of its last projection.
    """
    done: set[int] = set()
    for step in order.steps:
        if step.port.side != "output" or id(step) in done:
            continue
        representation = step.ops[0].representation
        if representation in ("attention", "ffn", "ffn.residual", "block"):
            continue
        chain = order.at(step.port, representation)
        if representation in ("attention.output", "ffn.down") and not step.ops[0].placement.site.inside:
            chain = [*chain, *_ends(anatomy, order, step.ops[0])]
        done.update(id(one) for one in chain)
        yield chain
    for step in order.steps:
        if id(step) not in done and step.ops[0].representation in ("attention", "ffn"):
            chain = _ends(anatomy, order, step.ops[0])
            done.update(id(one) for one in chain)
            yield chain
    for step in order.steps:
        if id(step) not in done and step.ops[0].representation == "block":
            chain = order.at(step.port, "block")
            done.update(id(one) for one in chain)
            yield chain


def _ends(anatomy: Anatomy, order: Order, op: Op) -> list[Step]:
    outer = op.representation.partition(".")[0]
    site = anatomy.beside(op.placement.site, outer)
    if site is None:
        return []
    steps = order.at(site.value, outer)
    return steps if site.join == site.value else [*steps, *order.at(site.join, outer)]


def inputs(order: Order) -> Iterable[list[Step]]:
    """Yield, for every linear module whose argument is changed, the steps that do so, in order."""
    ports = dict.fromkeys(
        step.port for step in order.steps if step.ops[0].representation in ("attention.heads", "ffn.hidden")
    )
    for port in ports:
        yield [step for step in order.steps if step.port == port]


def _conflicts(
    anatomy: Anatomy, order: Order, idle: Sequence[Record], targets: dict[Op, Target], reasons: dict[Op, str]
) -> Iterable[tuple[Op, str]]:
    for chain in chains(anatomy, order):
        yield from _blocked_after(chain, reasons)
    for chain in inputs(order):
        yield from _blocked_before(chain, reasons)
    for op, target in targets.items():
        for other in order.ops:
            if op not in reasons and other in reasons and _computes_with(other) == (target.module, op.representation):
                yield op, f"{named(other)} computes with {target.module!r} as it was, and stays"
        if target.side == "units" and op not in reasons:
            why = _blocked_inside(anatomy, order, idle, op, reasons)
            if why is not None:
                yield op, why


def _computes_with(op: Op) -> tuple[str, str] | None:
    """Return the module of the model that a change calls by itself, and the representation that would change it."""
    site, one = op.placement.site, op.placement.modification
    if isinstance(one.form, HeadAttention) and one.form.layer_norm == "in" and site.query is not None:
        return site.query.module, "attention.query"
    if isinstance(one.insertion, Sequential) and one.insertion.reads == "normed" and site.norm_after is not None:
        return site.norm_after, "block"
    return None


def _blocked_after(chain: Sequence[Step], reasons: dict[Op, str]) -> Iterable[tuple[Op, str]]:
    """What folds into a result is computed first, so it must commute with every change that stays."""
    earlier: list[Op] = []
    for step in chain:
        staying = [op for op in step.ops if op in reasons]
        for op in step.ops:
            if op in reasons:
                continue
            reader = next((one for one in (*earlier, *staying) if one.reads_h), None)
            before = earlier[0] if earlier and op.reads_h else None
            if reader is not None:
                yield op, f"{named(reader)} reads the same h without it, and stays"
            elif before is not None:
                yield op, f"it reads what {named(before)} has changed, which stays"
        earlier += [op for op in step.ops if op in reasons]


def _blocked_before(chain: Sequence[Step], reasons: dict[Op, str]) -> Iterable[tuple[Op, str]]:
    """What folds into a weight's argument is computed last, so whole steps fold, from the last one on."""
    staying: Op | None = None
    for step in reversed(chain):
        staying = next((op for op in step.ops if op in reasons), staying)
        if staying is not None:
            for op in step.ops:
                if op not in reasons:
                    yield op, f"{named(staying)} changes the same h beside or after it, and stays"


def _blocked_inside(
    anatomy: Anatomy, order: Order, idle: Sequence[Record], op: Op, reasons: dict[Op, str]
) -> str | None:
    ffn = anatomy.feed_forward(op.placement.site)
    assert not isinstance(ffn, str)
    ends = [(ffn.up, "output"), (ffn.down, "input"), *([(ffn.gate, "output")] if ffn.gate else [])]
    for end in ends:
        for other in order.touching(*end):
            if other in reasons:
                return f"{named(other)} stays, and is made for an FFN of the width it has now"
        for record in idle:
            for one in record.plan.placements:
                if (one.site.value.module, one.site.value.side) == end:
                    return f"attachment {record.name!r} is made for an FFN of the width it has now; detach it first"
    return None


def named(op: Op) -> str:
    """Return a change's name for messages."""
    return f"{op.placement.key!r} of {op.record.name!r}"
