r"""Computes the new weights of a fold, and the edits that put them into the model.

For a linear module y = W x + b whose result is changed in steps, each step is, on the y it reads,

.. math:: y \leftarrow l \odot y + U D\, y + U' D' x + c

so W and b change in the same way; a step on its argument multiplies W from the right. Hidden units of an FFN
are rows of its first projections and columns of its last. One module is computed at a time, so that only one is
ever held in full precision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from unipetl.architectures import Port
from unipetl.attaching.ports import Change
from unipetl.folding import linear
from unipetl.folding.algebra import MIRRORED, Units, factors_of, gated, joined, linear_of, mirrored, units_of
from unipetl.folding.decide import Decision, chains, inputs
from unipetl.folding.edits import Edit, SetConfig, SetModule, SetParameter
from unipetl.folding.linear import Affine
from unipetl.folding.split import SplitActivation
from unipetl.folding.steps import Op, Order, Step
from unipetl.folding.targets import Anatomy
from unipetl.folding.width import Widths, width_settings
from unipetl.forms import ExpertsDelta
from unipetl.planning.units import FeedForward


@dataclass
class Rewriting:
    """The new weights of one fold.

    Attributes:
        occupied: ends of modules whose width a change that stays relies on.
        results, arguments: path of a linear module -> the steps that change its result, or its argument.
        norms: path of a layer norm -> the steps on its result.
        units: up-projection of an FFN -> the FFN and its new hidden units.
        padding: of those, units that do nothing, for FFNs that must be as wide as others.
        not_plain: why the result is not a plain model of its class, if it is not.
    """

    anatomy: Anatomy
    decision: Decision
    occupied: set[tuple[str, str]]
    results: dict[str, list[Step]] = field(default_factory=dict)
    arguments: dict[str, list[Step]] = field(default_factory=dict)
    norms: dict[str, list[Step]] = field(default_factory=dict)
    units: dict[str, tuple[FeedForward, list[Units]]] = field(default_factory=dict)
    padding: dict[str, Units] = field(default_factory=dict)
    not_plain: list[str] = field(default_factory=list)
    _of: dict[Op, Units] = field(default_factory=dict)
    _settings: list[SetConfig] = field(default_factory=list)

    def compute(self, order: Order) -> list[Edit]:
        """Return everything that changes in the model."""
        self._sort(order)
        if self.units and not self.not_plain:
            self._settle_widths()
        edits: list[Edit] = []
        for path in self.modules():
            edits += self._linear(path)
        for path, steps in self.norms.items():
            edits += self._norm(path, steps)
        edits += self._activations()
        return edits if self.not_plain else [*edits, *self._settings]

    def modules(self) -> list[str]:
        """Return the paths of the linear modules that change."""
        ends = [path for ffn, _ in self.units.values() for path in ffn.projections]
        return list(dict.fromkeys([*self.results, *self.arguments, *ends]))

    def _sort(self, order: Order) -> None:
        """Find the steps of every module, and make the hidden units."""
        for chain in chains(self.anatomy, order):
            for step in chain:
                for target in dict.fromkeys(self.decision.targets[op] for op in self._folding(step)):
                    where = self.norms if target.side == "norm" else self.results
                    steps = where.setdefault(target.module, [])
                    if step not in steps:
                        steps.append(step)
                for op in self._folding(step):
                    if self.decision.targets[op].side == "units":
                        self._make_units(op)
        for chain in inputs(order):
            for step in reversed(chain):
                if self._folding(step):
                    self.arguments.setdefault(step.port.module, []).append(step)

    def _folding(self, step: Step) -> list[Op]:
        return [op for op in step.ops if op in self.decision.targets]

    def _make_units(self, op: Op) -> None:
        ffn = self.anatomy.feed_forward(op.placement.site)
        assert not isinstance(ffn, str)
        units = self._as_the_ffn_has_them(op, ffn, units_of(op, self._like(ffn)))
        self._of[op] = units
        self.units.setdefault(ffn.up, (ffn, []))[1].append(units)
        for path, biases in self._new_biases(ffn, units):
            module = self.anatomy.model.get_submodule(path)
            if any(bias is not None for bias in biases) and module._parameters.get("bias") is None:
                self._say_bias(path)

    def _like(self, ffn: FeedForward) -> Tensor:
        """Return an empty tensor where and as new units are computed."""
        weight = self.anatomy.model.get_submodule(ffn.down)._parameters["weight"]
        assert weight is not None
        return torch.empty(0, dtype=torch.promote_types(weight.dtype, torch.float32), device=weight.device)

    def _new_biases(self, ffn: FeedForward, units: Units) -> list[tuple[str, list[Tensor | None]]]:
        gate = [] if ffn.gate is None else [(ffn.gate, [units.gate_bias])]
        return [(ffn.up, [units.down_bias]), *gate, (ffn.down, [units.constant])]

    def _as_the_ffn_has_them(self, op: Op, ffn: FeedForward, units: Units) -> Units:
        """Return the units as units of the FFN's own kind where that can be; where not, the model is not plain."""
        own = ffn.activation
        if own is not None and units.activation == "identity" and (ffn.gate is not None or own in MIRRORED):
            return gated(units, own) if ffn.gate is not None else mirrored(units, own)
        if units.activation != own:
            self.not_plain.append(
                f"{op.placement.key!r} keeps its activation ({units.activation}) beside the FFN's ({own or 'its own'})"
            )
        return gated(units, units.activation) if ffn.gate is not None and units.gate is None else units

    def _say_bias(self, path: str) -> None:
        self.not_plain.append(f"{path!r} gets a bias, which models of this class do not have there")

    def _settle_widths(self) -> None:
        """Make the FFNs equally wide, with units that do nothing, and let the config say how wide."""
        wanted = {up: ffn.width + sum(one.down.shape[0] for one in units) for up, (ffn, units) in self.units.items()}
        found = width_settings(self.anatomy, wanted, self.occupied)
        if not isinstance(found, Widths):
            self.not_plain.append(found)
            return
        self._settings = found.settings
        for ffn, width in found.padded:
            units = self.units.setdefault(ffn.up, (ffn, []))[1]
            size = width - ffn.width - sum(one.down.shape[0] for one in units)
            like = self._like(ffn)
            rows = like.new_zeros(size, ffn.reads)
            gate = None if ffn.gate is None else rows
            nothing = Units(rows, None, gate, None, like.new_zeros(ffn.writes, size), None, str(ffn.activation))
            self.padding[ffn.down] = nothing
            units.append(nothing)

    def _linear(self, path: str) -> list[Edit]:
        """Return the edits of one linear module."""
        steps = [*self.results.get(path, ()), *self.arguments.get(path, ())]
        if steps and steps[0].ops[0].placement.site.stacked is not None:
            return self._stacked(path)
        module = self.anatomy.model.get_submodule(path)
        affine = linear.read(module)
        inner = affine.weight.shape[1]
        for step in self.results.get(path, ()):
            self._change_result(affine, step.port, self._folding(step))
        for step in self.arguments.get(path, ()):
            self._change_argument(affine, self._folding(step), inner)
        for ffn, units in self.units.values():
            _widen(affine, path, ffn, units)
        if path in self.padding:
            affine.weight = torch.cat([affine.weight, self.padding[path].up], dim=1)
        if affine.bias is not None and module._parameters.get("bias") is None:
            self._say_bias(path)
        return list(linear.write(self.anatomy.model, path, affine))

    def _stacked(self, path: str) -> list[Edit]:
        """Return the edit of a parameter that holds a matrix for each expert."""
        stacked = self.anatomy.stacked_at(path)
        old = linear.parameter_at(self.anatomy.model, path)[1]
        assert old is not None
        new = torch.empty_like(old.detach())
        for expert, matrix in enumerate(old.detach()):
            wide = matrix.to(torch.promote_types(matrix.dtype, torch.float32))
            affine = Affine(wide.T if stacked.transposed else wide, None)
            for step in self.results.get(path, ()):
                self._change_result(affine, step.port, _of_expert(self._folding(step), expert))
            for step in self.arguments.get(path, ()):
                self._change_argument(affine, _of_expert(self._folding(step), expert), affine.weight.shape[1])
            new[expert] = affine.weight.T if stacked.transposed else affine.weight
        return [SetParameter(path, linear.parameter(new, old, path))]

    def _change_result(self, affine: Affine, port: Port, ops: Sequence[Op]) -> None:
        rows = linear.rows(port, affine.weight.shape[0]).to(affine.weight.device)
        before = affine.weight[rows]
        bias = None if affine.bias is None else affine.bias[rows]
        weight, shift = before.clone(), None if bias is None else bias.clone()
        for op in ops:
            if op.kind == "factor":
                factors = factors_of(op, before)
                weight = weight * factors[:, None]
                shift = None if shift is None else shift * factors
        for op in ops:
            if op in self._of:  # columns of the last projection: later steps change them with the rest
                weight = torch.cat([weight, self._of[op].up], dim=1)
                shift = _sum(shift, self._of[op].constant)
            elif op.kind != "factor":
                change = linear_of(op, before)
                addend = change.up @ (change.down @ before if op.reads_h else change.down)
                weight[:, : addend.shape[1]] += addend
                if op.reads_h and bias is not None:
                    shift = _sum(shift, change.up @ (change.down @ bias))
                shift = _sum(shift, change.constant)
        if len(rows) == affine.weight.shape[0] and port.columns is None:
            affine.weight, affine.bias = weight, shift
            return
        affine.weight = affine.weight.index_copy(0, rows, weight)
        if shift is not None:
            whole = affine.weight.new_zeros(affine.weight.shape[0]) if affine.bias is None else affine.bias
            affine.bias = whole.index_copy(0, rows, shift)

    def _change_argument(self, affine: Affine, ops: Sequence[Op], inner: int) -> None:
        """Change the first ``inner`` columns: those of new hidden units stand behind them."""
        weight, rest = affine.weight[:, :inner], affine.weight[:, inner:]
        result = weight.clone()
        for op in ops:
            if op.kind == "factor":
                result = result * factors_of(op, weight)[None, :]
        for op in ops:
            if op.kind != "factor":
                change = linear_of(op, weight)
                result = result + (weight @ change.up) @ change.down
                if change.constant is not None:
                    affine.bias = _sum(affine.bias, weight @ change.constant)
        affine.weight = torch.cat([result, rest], dim=1)

    def _norm(self, path: str, steps: Sequence[Step]) -> list[Edit]:
        edits: list[Edit] = []
        ops = [op for step in steps for op in self._folding(step)]
        for name, old in self.anatomy.model.get_submodule(path)._parameters.items():
            if old is not None:
                values = old.detach().to(torch.promote_types(old.dtype, torch.float32))
                for op in ops:
                    values = values * factors_of(op, values)
                edits.append(SetParameter(f"{path}.{name}", linear.parameter(values, old, path)))
        return edits

    def _activations(self) -> list[Edit]:
        edits: list[Edit] = []
        for ffn, units in self.units.values():
            if any(one.activation != ffn.activation for one in units):
                parts = [(ffn.width, ""), *((one.down.shape[0], one.activation) for one in units)]
                own = self.anatomy.model.get_submodule(ffn.activation_path)
                edits.append(SetModule(ffn.activation_path, SplitActivation(own, parts).train(own.training)))
        return edits


def _of_expert(ops: Sequence[Op], expert: int) -> list[Op]:
    """Return the changes as one expert has them, without those for which it was not chosen."""
    found = []
    for op in ops:
        assert isinstance(op.change.delta, ExpertsDelta)
        delta = op.change.delta.of(expert)
        if delta is not None:
            change = Change(op.change.modification, delta)
            change.scale = op.change.scale
            found.append(replace(op, change=change))
    return found


def _widen(affine: Affine, path: str, ffn: FeedForward, units: Sequence[Units]) -> None:
    """Add the rows of hidden units to a first projection of their FFN, behind the rows that are there.

    Where one module is gate and up at once, each half gets its own rows behind it.
    """
    downs = ([one.down for one in units], [one.down_bias for one in units])
    gates = ([one.gate for one in units if one.gate is not None], [one.gate_bias for one in units])
    if path not in (ffn.up, ffn.gate):
        return
    if not ffn.fused:
        _append(affine, *(downs if path == ffn.up else gates))
        return
    up, gate = ffn.parts
    assert up is not None
    assert gate is not None
    halves = []
    for part, (rows, biases) in sorted([(up.start, downs), (gate.start, gates)], key=lambda one: one[0]):
        bias = None if affine.bias is None else affine.bias[part : part + ffn.width]
        half = Affine(affine.weight[part : part + ffn.width], bias)
        _append(half, rows, biases)
        halves.append(half)
    sizes = [half.weight.shape[0] for half in halves]
    affine.bias = joined([half.bias for half in halves], sizes, affine.weight)
    affine.weight = torch.cat([half.weight for half in halves])


def _append(affine: Affine, rows: Sequence[Tensor], biases: Sequence[Tensor | None]) -> None:
    """Add rows to a first projection, with their biases."""
    counts = [affine.weight.shape[0], *(one.shape[0] for one in rows)]
    affine.bias = joined([affine.bias, *biases], counts, affine.weight)
    affine.weight = torch.cat([affine.weight, *rows])


def _sum(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    if first is None or second is None:
        return second if first is None else first
    return first + second
