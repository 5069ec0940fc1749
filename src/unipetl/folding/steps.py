"""The changes of a model's active attachments, in the order in which its hooks compute them.

The order is that of [install][unipetl.attaching.install.install]: at one end of a module inner
representations change first, and within one the attachments in the order of stacking. The changes of one attachment
to one representation are one step: all of them read the same h.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from torch import Tensor

from unipetl.architectures import Port
from unipetl.attaching.ports import Change
from unipetl.attaching.state import Record
from unipetl.composition import Add, Multiply
from unipetl.forms import Bottleneck, HeadAttention, LowRank, Prompt, Rescale
from unipetl.insertion import Parallel, Sequential
from unipetl.planning import Placement
from unipetl.planning.joints import joint, read_above
from unipetl.representation import rank

Kind = Literal["factor", "linear", "bottleneck", "heads", "prompt", "other"]


@dataclass(frozen=True, eq=False)
class Op:
    """One change at one place; ``port`` is where it joins h."""

    record: Record
    placement: Placement
    change: Change
    port: Port

    @property
    def representation(self) -> str:
        """The name of the representation it changes."""
        return self.placement.site.representation

    @property
    def parallel(self) -> bool:
        """Whether it reads the sub-layer's input."""
        return isinstance(self.placement.modification.insertion, Parallel)

    @property
    def reads_h(self) -> bool:
        """Whether what it does depends on the h it changes."""
        return not self.parallel

    @cached_property
    def kind(self) -> Kind:
        """What sort of function it is, as folding sees it."""
        one = self.placement.modification
        form, insertion = one.form, one.insertion
        if isinstance(form, HeadAttention):
            return "heads"
        if isinstance(form, Prompt):
            return "prompt"
        if isinstance(insertion, Sequential) and insertion.reads == "normed":
            return "other"
        if isinstance(form, Rescale) and isinstance(one.composition, Multiply):
            return "factor"
        if not isinstance(one.composition, Add):
            return "other"
        if isinstance(form, LowRank):
            return "linear"
        if isinstance(form, Bottleneck) and form.layer_norm == "none":
            return "linear" if form.activation == "identity" and not form.gated else "bottleneck"
        return "other"

    @property
    def scale(self) -> float | Tensor:
        """The factor s of its composition."""
        composition = self.placement.modification.composition
        if self.change.scale is not None:
            return self.change.scale.detach()
        return float(composition.scale) if isinstance(composition, Add) else 1.0


@dataclass
class Step:
    """The changes of one attachment to one representation, at one port."""

    record: Record
    port: Port
    rank: int
    ops: list[Op] = field(default_factory=list)


@dataclass(frozen=True)
class Order:
    """Every step of a model, by the end of the module where it happens."""

    ops: tuple[Op, ...]
    steps: tuple[Step, ...]

    def at(self, port: Port, representation: str) -> list[Step]:
        """Return the steps that change ``representation`` at ``port``, in order."""
        wanted = rank(representation)
        return [step for step in self.steps if step.port == port and step.rank == wanted]

    def touching(self, module: str, side: str) -> list[Op]:
        """Return every change at one end of a module, whatever its columns."""
        return [op for step in self.steps for op in step.ops if (step.port.module, step.port.side) == (module, side)]


def order_of(records: Sequence[Record]) -> Order:
    """Return the steps of ``records``, the active attachments in the order of stacking."""
    above = read_above([record.plan for record in records])
    ops = tuple(
        Op(record, one, record.changes[one.key], joint(one, read))
        for record, read in zip(records, above, strict=True)
        for one in record.plan.placements
    )
    steps: list[Step] = []
    for op in ops:
        if op.kind in ("heads", "prompt"):
            continue
        place = rank(op.representation)
        same = [step for step in steps if step.record is op.record and step.port == op.port and step.rank == place]
        step = same[0] if same else Step(op.record, op.port, place)
        if not same:
            steps.append(step)
        step.ops.append(op)
    steps.sort(key=lambda step: step.rank)
    return Order(ops, tuple(steps))
