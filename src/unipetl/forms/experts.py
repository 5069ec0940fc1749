r"""A form at every expert of a mixture: parameters of its own for each, and one module for all of them.

An expert's change is the form's, of that expert's numbers: for LoRA on its matrix W_e

.. math:: W_e \leftarrow W_e + s\, B_e A_e

What a place holds are the form's parameters with one more axis in front, the experts'.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from unipetl.forms.form import Delta, Experts, Form, Shape


@dataclass(frozen=True, eq=False)
class Visit:
    """Which expert computes which rows of a product; one of the three says it.

    Attributes:
        expert: one expert for all rows, as a number or a tensor of one number.
        rows: the expert of every row, (rows,).
        ends: where each expert's rows end, (experts,); rows behind the last end are no expert's.
        (none of them): the first axis of what is read is the experts'.
    """

    expert: int | Tensor | None = None
    rows: Tensor | None = None
    ends: Tensor | None = None


class ExpertsDelta(Delta):
    """The trainable part of a form at a mixture: ``each`` has parameters (experts, ...)."""

    def __init__(self, form: Form, shape: Experts) -> None:
        super().__init__()
        self.form = form
        self.shape = shape
        self.each = form.build(shape.each, None, 0)
        for path, parameter in list(self.each.named_parameters()):
            owner, _, name = path.rpartition(".")
            stacked = nn.Parameter(parameter.new_empty(len(shape.chosen), *parameter.shape))
            setattr(self.each.get_submodule(owner), name, stacked)

    def reset(self, generator: torch.Generator) -> None:
        """Draw each expert's initial values from a number of its own, whichever others are chosen."""
        start = int(torch.randint(2**62, (), generator=generator))
        one = self.form.build(self.shape.each, None, 0)
        with torch.no_grad():
            for slot, expert in enumerate(self.shape.chosen):
                one.reset(torch.Generator().manual_seed(start + expert))
                for name, parameter in self.each.named_parameters():
                    parameter[slot].copy_(one.get_parameter(name))

    def of(self, expert: int) -> Delta | None:
        """Return a module with a copy of one expert's parameters; None if that expert was not chosen."""
        if expert not in self.shape.chosen:
            return None
        one = copy.deepcopy(self.each)
        slot = self.shape.chosen.index(expert)
        for path, parameter in self.each.named_parameters():
            owner, _, name = path.rpartition(".")
            setattr(one.get_submodule(owner), name, nn.Parameter(parameter[slot].detach().clone()))
        return one

    def forward(self, x: Tensor, visit: Visit, nothing: float) -> Tensor:
        """Map what experts read to their changes.

        Args:
            x: (..., features) for one expert, (rows, features), or (experts, rows, features).
            visit: which expert reads what.
            nothing: what stands for the change of an expert that was not chosen: 0, or 1 for factors.

        Returns:
            The change, of a shape that goes with (..., out features).
        """
        if visit.expert is not None:
            return self._one(x, visit.expert, nothing)
        if visit.rows is not None:
            return self._rows(x, visit.rows, nothing)
        if visit.ends is not None:
            if torch.compiler.is_compiling():  # a loop over the ends would break the graph
                places = torch.arange(x.shape[0], device=x.device, dtype=visit.ends.dtype)
                return self._rows(x, torch.searchsorted(visit.ends, places, right=True), nothing)
            return self._runs(x, _sizes_of(visit.ends.tolist(), x.shape[0]), nothing)
        every = [(expert, x.shape[1]) for expert in range(x.shape[0])]
        return self._runs(x.flatten(0, 1), every, nothing).reshape(*x.shape[:2], -1)

    def _one(self, x: Tensor, expert: int | Tensor, nothing: float) -> Tensor:
        slot: int | Tensor = expert
        if not isinstance(expert, Tensor) or len(self.shape.chosen) < self.shape.total:
            found = int(expert)
            if found not in self.shape.chosen:
                return x.new_full((), nothing)
            slot = self.shape.chosen.index(found)
        return self._call(x, {name: parameter[slot] for name, parameter in self.each.named_parameters()})

    def _rows(self, x: Tensor, experts: Tensor, nothing: float) -> Tensor:
        slots = self._slots(experts)
        known = slots.clamp(min=0)
        own = {name: parameter[known] for name, parameter in self.each.named_parameters()}
        change = torch.vmap(self._call, randomness="different")(x, own)
        return torch.where((slots >= 0)[:, None], change, nothing)

    def _slots(self, experts: Tensor) -> Tensor:
        """Return the place of each expert's parameters; -1 where it has none."""
        chosen = torch.tensor(self.shape.chosen, device=experts.device)
        same = experts[:, None] == chosen
        return torch.where(same.any(dim=1), same.long().argmax(dim=1), -1)

    def _runs(self, x: Tensor, sizes: list[tuple[int, int]], nothing: float) -> Tensor:
        """Return the changes of rows that are sorted by expert: (expert, how many rows) one after the other."""
        own = [parameter.unbind() for parameter in self.each.parameters()]  # once, as its gradient is stacked once
        names = [name for name, _ in self.each.named_parameters()]
        found = []
        for (expert, _), rows in zip(sizes, torch.split(x, [size for _, size in sizes]), strict=True):
            if expert in self.shape.chosen:
                slot = self.shape.chosen.index(expert)
                change = self._call(rows, {name: values[slot] for name, values in zip(names, own, strict=True)})
                found.append(change.expand(len(rows), change.shape[-1]))
            else:
                found.append(x.new_full((len(rows), self.shape.each.out_features), nothing))
        return torch.cat(found)

    def _call(self, x: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        result: Tensor = functional_call(self.each, parameters, (x,))
        return result


def _sizes_of(ends: list[int], total: int) -> list[tuple[int, int]]:
    """Return every expert with its number of rows; the rows behind the last end go to an expert after the last."""
    starts = [0, *ends]
    return [(expert, end - start) for expert, (start, end) in enumerate(zip(starts, [*ends, total], strict=True))]


def build_at(form: Form, shape: Shape, shared: Delta | None, index: int) -> Delta:
    """Return the module of ``form`` at a place of any shape, the ``index``-th of those that share ``shared``."""
    return ExpertsDelta(form, shape) if isinstance(shape, Experts) else form.build(shape, shared, index)


def paper_parameters_at(form: Form, shape: Shape) -> int:
    """Return the count by the paper's rule, experts one by one."""
    if isinstance(shape, Experts):
        return len(shape.chosen) * form.paper_parameters(shape.each)
    return form.paper_parameters(shape)
