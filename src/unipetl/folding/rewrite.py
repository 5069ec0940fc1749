r"""Computes the new weights of a fold, and the edits that put them into the model.

For a linear module y = W x + b whose result is changed in steps, each step is, on the y it reads,

.. math:: y \leftarrow l \odot y + U D\, y + U' D' x + c

so W and b change in the same way; a step on its argument multiplies W from the right. Hidden units of an FFN
are rows of its first projections and columns of its last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from unipetl.architectures import Port
from unipetl.folding import linear
from unipetl.folding.algebra import MIRRORED, Units, factors_of, gated, joined, linear_of, mirrored, units_of
from unipetl.folding.decide import Decision, chains, inputs
from unipetl.folding.edits import Edit, SetConfig, SetModule, SetParameter
from unipetl.folding.linear import Affine
from unipetl.folding.split import SplitActivation
from unipetl.folding.steps import Op, Order, Step
from unipetl.folding.targets import Anatomy
from unipetl.folding.width import width_settings
from unipetl.planning.units import FeedForward


@dataclass
class Rewriting:
    """The new weights of one fold.

    Attributes:
        affine: path of a linear module -> its new map.
        norms: path of a layer norm -> the factors on its result.
        units: up-projection of an FFN -> the FFN and its new hidden units.
        occupied: ends of modules whose width a change that stays relies on.
        not_plain: why the result is not a plain model of its class, if it is not.
    """

    anatomy: Anatomy
    decision: Decision
    occupied: set[tuple[str, str]]
    affine: dict[str, Affine] = field(default_factory=dict)
    norms: dict[str, Tensor] = field(default_factory=dict)
    units: dict[str, tuple[FeedForward, list[Units]]] = field(default_factory=dict)
    activations: dict[str, SplitActivation] = field(default_factory=dict)
    settings: list[SetConfig] = field(default_factory=list)
    not_plain: list[str] = field(default_factory=list)

    def compute(self, order: Order) -> None:
        """Compute every new weight."""
        for chain in chains(self.anatomy, order):
            for step in chain:
                self._result_step(step)
        for chain in inputs(order):
            for step in reversed(chain):
                self._argument_step(step)
        for ffn, units in self.units.values():
            self._widen(ffn, units)
        if self.units:
            self._settle_widths()

    def edits(self) -> list[Edit]:
        """Return everything that changes in the model."""
        model = self.anatomy.model
        found: list[Edit] = []
        for path, affine in self.affine.items():
            had = model.get_submodule(path)._parameters.get("bias") is not None
            if affine.bias is not None and not had:
                self.not_plain.append(f"{path!r} gets a bias, which models of this class do not have there")
            found += linear.write(model, path, affine)
        for path, factors in self.norms.items():
            module = model.get_submodule(path)
            for name, old in module._parameters.items():
                if old is not None:
                    values = old.detach().to(factors.dtype) * factors
                    found.append(SetParameter(f"{path}.{name}", linear.parameter(values, old, path)))
        found += [SetModule(path, module) for path, module in self.activations.items()]
        if self.not_plain:
            return found
        return [*found, *self.settings]

    def _map(self, path: str) -> Affine:
        if path not in self.affine:
            self.affine[path] = linear.read(self.anatomy.model.get_submodule(path))
        return self.affine[path]

    def _folding(self, step: Step) -> list[Op]:
        return [op for op in step.ops if op in self.decision.targets]

    def _result_step(self, step: Step) -> None:
        ops = self._folding(step)
        if not ops:
            return
        target = self.decision.targets[ops[0]]
        if target.side == "norm":
            self._rescale_norm(target.module, ops)
            return
        affine = self._map(target.module)
        rows = _rows(step.port, affine.weight.shape[0], affine.weight.device)
        before = affine.weight[rows]
        bias = None if affine.bias is None else affine.bias[rows]
        weight, shift = before.clone(), None if bias is None else bias.clone()
        for op in ops:
            if op.kind == "factor":
                factors = factors_of(op, before)
                weight = weight * factors[:, None]
                shift = None if shift is None else shift * factors
        for op in ops:
            if op.kind == "factor":
                continue
            if self.decision.targets[op].side == "units":
                ffn = self.anatomy.feed_forward(op.placement.site)
                assert not isinstance(ffn, str)
                units = self._as_the_ffn_has_them(op, ffn, units_of(op, before))
                self.units.setdefault(ffn.up, (ffn, []))[1].append(units)
                # columns of the last projection: later steps of the chain change them with the rest
                weight = torch.cat([weight, units.up], dim=1)
                shift = _sum(shift, units.constant)
                continue
            change = linear_of(op, before)
            if op.reads_h:
                addend = change.up @ (change.down @ before)
                constant = None if bias is None else change.up @ (change.down @ bias)
                shift = _sum(_sum(shift, constant), change.constant)
            else:
                addend = change.up @ change.down
                shift = _sum(shift, change.constant)
            weight[:, : addend.shape[1]] += addend
        self._put(affine, rows, weight, shift)

    def _put(self, affine: Affine, rows: Tensor | slice, weight: Tensor, shift: Tensor | None) -> None:
        if isinstance(rows, slice):
            affine.weight, affine.bias = weight, shift
            return
        affine.weight = affine.weight.clone()
        affine.weight[rows] = weight
        if shift is not None:
            whole = affine.weight.new_zeros(affine.weight.shape[0]) if affine.bias is None else affine.bias.clone()
            whole[rows] = shift
            affine.bias = whole

    def _rescale_norm(self, path: str, ops: Sequence[Op]) -> None:
        weight = self.anatomy.model.get_submodule(path)._parameters["weight"]
        assert weight is not None
        like = weight.detach().to(torch.promote_types(weight.dtype, torch.float32))
        for op in ops:
            self.norms[path] = self.norms.get(path, torch.ones_like(like)) * factors_of(op, like)

    def _argument_step(self, step: Step) -> None:
        ops = self._folding(step)
        if not ops:
            return
        affine = self._map(step.port.module)
        width = ops[0].placement.site.value
        own = self._own_width(width, affine)
        weight, rest = affine.weight[:, :own], affine.weight[:, own:]
        result = weight.clone()
        for op in ops:
            if op.kind == "factor":
                result = result * factors_of(op, weight)[None, :]
        for op in ops:
            if op.kind == "factor":
                continue
            change = linear_of(op, weight)
            result = result + (weight @ change.up) @ change.down
            if change.constant is not None:
                affine.shift(weight @ change.constant)
        affine.weight = torch.cat([result, rest], dim=1)

    def _own_width(self, port: Port, affine: Affine) -> int:
        """The number of the module's own columns: those of new hidden units stand behind them."""
        added = sum(
            units.up.shape[1] for ffn, found in self.units.values() if ffn.down == port.module for units in found
        )
        return affine.weight.shape[1] - added

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

    def _widen(self, ffn: FeedForward, units: Sequence[Units]) -> None:
        counts = [one.down.shape[0] for one in units]
        self._append(ffn.up, [one.down for one in units], [one.down_bias for one in units], counts)
        if ffn.gate is not None:
            gates = [one.gate for one in units if one.gate is not None]
            self._append(ffn.gate, gates, [one.gate_bias for one in units], counts)
        if any(one.activation != ffn.activation for one in units):
            parts = [(ffn.width, ""), *((n, one.activation) for n, one in zip(counts, units, strict=True))]
            own = self.anatomy.model.get_submodule(ffn.activation_path)
            self.activations[ffn.activation_path] = SplitActivation(own, parts)

    def _append(self, path: str, rows: Sequence[Tensor], biases: Sequence[Tensor | None], counts: list[int]) -> None:
        affine = self._map(path)
        own = affine.weight.shape[0]
        affine.bias = joined([affine.bias, *biases], [own, *counts], affine.weight)
        affine.weight = torch.cat([affine.weight, *rows])

    def _settle_widths(self) -> None:
        """Make the FFNs equally wide, with units that do nothing, and let the config say how wide."""
        if self.not_plain:
            return
        wanted = {ffn.up: self.affine[ffn.up].weight.shape[0] for ffn, _ in self.units.values()}
        found = width_settings(self.anatomy, wanted, self.occupied)
        if isinstance(found, str):
            self.not_plain.append(found)
            return
        self.settings = found.settings
        for ffn, width in found.padded:
            for path in (ffn.up, *([ffn.gate] if ffn.gate else [])):
                affine = self._map(path)
                affine.weight = _zeros_after(affine.weight, width, dim=0)
                affine.bias = None if affine.bias is None else _zeros_after(affine.bias, width, dim=0)
            down = self._map(ffn.down)
            down.weight = _zeros_after(down.weight, width, dim=1)


def _zeros_after(values: Tensor, size: int, *, dim: int) -> Tensor:
    shape = list(values.shape)
    shape[dim] = size - shape[dim]
    return torch.cat([values, values.new_zeros(shape)], dim=dim)


def _sum(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    if first is None or second is None:
        return second if first is None else first
    return first + second


def _rows(port: Port, features: int, device: torch.device) -> Tensor | slice:
    """Return the rows of a module's W that make the features a port selects."""
    if port.columns is None or port.columns == (0, features):
        return slice(None)
    return torch.arange(*port.columns, device=device)
