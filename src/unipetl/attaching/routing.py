"""One batch, another attachment in every row: the changes of all rows, computed together.

Stacks of attachments are taken level by level: at every place the first attachments of all rows change their rows,
then the second ones read what those left, as with [activate][]. At one level and place, changes of one structure are
one [Group][unipetl.attaching.grouped.Group].
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unipetl.architectures import Port, join_path
from unipetl.architectures.embeddings import token_embedding
from unipetl.attaching.attachment import refuse_shared
from unipetl.attaching.grouped import Group, GroupHead, GroupItem, RowStep, packed
from unipetl.attaching.hooks import Hooks
from unipetl.attaching.install import Ports, add_change, add_heads, install, install_stack_hooks
from unipetl.attaching.layout import require_rows
from unipetl.attaching.own_rows import OwnRows, PositionBias
from unipetl.attaching.ports import Change
from unipetl.attaching.prompts import argument_names
from unipetl.attaching.row_prompts import install_row_prompts
from unipetl.attaching.rows import BeginStack, CheckBatch, Generating, Rows
from unipetl.attaching.state import Record, State, parked_beside, stack_of, state_of
from unipetl.errors import AttachError
from unipetl.forms import HeadAttention, Prompt
from unipetl.planning import Placement
from unipetl.planning.joints import Read, joint, read_above
from unipetl.planning.own import CHILD, own_modules

Names = Sequence[str | Sequence[str] | None]


class Routing:
    """What ``routed`` returns: inside a ``with`` block, rows are computed with their attachments.

    It can be entered again, and then uses what it has stacked as far as nothing has changed.
    """

    def __init__(self, model: nn.Module, names: Names) -> None:
        self.model = model
        self.stacks = _stacks(model, names)
        self._outer: list[Routing | None] = []

    def __enter__(self) -> Routing:
        """Route rows from now on."""
        state = state_of(self.model)
        for stack in self.stacks:
            refuse_shared([state.find(name) for name in stack])
        before, state.routing = state.routing, self
        try:
            install(self.model, state)
        except BaseException:
            state.routing = before
            install(self.model, state)
            raise
        self._outer.append(before)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Compute with the active attachments again."""
        state = state_of(self.model)
        state.routing = self._outer.pop()
        install(self.model, state)

    def install(self, model: nn.Module, state: State) -> None:
        """Put on the model what computes the rows."""
        rows = Rows(self.stacks)
        used = {name: state.find(name) for stack in self.stacks for name in stack}
        own = own_values(model, rows, state, used)
        require_rows(model, used.values(), [path for path, values in own.items() if _differ(values)])
        hooks = Hooks(model)
        _route_own(model, hooks, rows, own, used)  # first, so that what stands before a forward stands before this
        ports = Ports(model, hooks)
        heads: dict[str, tuple[Placement, list[GroupHead]]] = {}
        above = [read_above([used[name].plan for name in stack]) for stack in self.stacks]
        for level in range(max((len(stack) for stack in self.stacks), default=0)):
            names = [stack[level] if level < len(stack) else None for stack in self.stacks]
            reads = [one[level] if level < len(one) else frozenset() for one in above]
            for one, group, port in _groups(names, reads, used):
                if isinstance(one.modification.form, Prompt):
                    continue
                if not isinstance(one.modification.form, HeadAttention):
                    item = GroupItem(group.changes[0], group=group)
                    add_change(model, ports, one, item, level, port, RowStep, rows=rows)
                    continue
                head = GroupHead(group.changes[0], group=group)
                if head.gated and not head.has_query:
                    heads.setdefault(one.site.owner, (one, []))[1].append(head)
                else:
                    add_heads(model, ports, one, head)
        for one, members in heads.values():
            add_heads(model, ports, one, packed(members, rows.count))
        hooks.before(model, CheckBatch(rows, argument_names(model)), with_kwargs=True)
        for root in sorted({stack[0] for record in used.values() for stack in record.plan.stacks}):
            stack = model.get_submodule(root)  # before all that asks how many rows there are
            hooks.before(stack, BeginStack(rows, argument_names(stack)), with_kwargs=True)
            hooks.after(stack, HoldUntilBackward(model, self, stack))
        ports.install()
        install_row_prompts(model, hooks, rows, used)
        stacks = [[used[name] for name in stack] for stack in self.stacks]
        install_stack_hooks(model, hooks, list(used.values()), stacks)
        holding = _holding(model, {id(one.module) for one in hooks.installed})
        hooks.methods("__deepcopy__", [(module, CopyUnrouted(module, model, state)) for module in holding])
        generate = getattr(model, "generate", None)
        if callable(generate):
            hooks.method(model, "generate", Generating(rows, generate))


@dataclass
class CopyUnrouted:
    """Copies a model that is routed, or a part of it, as it is outside the block, which the copy could never leave."""

    module: nn.Module
    model: nn.Module
    state: State

    def __call__(self, memo: dict[int, Any]) -> nn.Module:
        """Return the copy, as ``copy.deepcopy`` makes it; the model's rows are routed on."""
        routing, self.state.routing = self.state.routing, None
        try:
            install(self.model, self.state)
            return copy.deepcopy(self.module, memo)
        finally:
            self.state.routing = routing
            install(self.model, self.state)


def _holding(model: nn.Module, ids: set[int]) -> list[nn.Module]:
    """Return what is or holds a module with one of these ids; attachments are not looked into."""
    found: dict[int, nn.Module] = {}  # a module may be at two places

    def visit(module: nn.Module) -> bool:
        holds = id(module) in ids
        for name, child in module._modules.items():
            if child is not None and name != CHILD and visit(child):
                holds = True
        if holds:
            found[id(module)] = module
        return holds

    visit(model)
    return list(found.values())


@dataclass
class HoldUntilBackward:
    """Forward hook on a stack: with gradient checkpoints the backward pass computes rows again, and must route them."""

    model: nn.Module
    routing: Routing
    stack: nn.Module

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        """Watch the first tensor's gradient, where there are checkpoints."""
        blocks = (one for one in self.stack.modules() if getattr(one, "gradient_checkpointing", False))
        if not torch.is_grad_enabled() or not self.stack.training or next(blocks, None) is None:
            return
        first = output if isinstance(output, Tensor) else output[0]
        if isinstance(first, Tensor) and first.requires_grad:
            first.register_hook(self._check)  # type: ignore[no-untyped-call]

    def _check(self, gradient: Tensor) -> None:
        if state_of(self.model).routing is not self.routing:
            raise AttachError(
                "routed(): with gradient checkpointing the backward pass computes the rows again; call backward() "
                "inside the `with routed(...)` block."
            )


def routed(model: nn.Module, names: Names) -> Routing:
    """Compute row i of every batch with the attachment ``names[i]``, inside a ``with`` block.

    ::

        with unipetl.routed(model, ["french", "german", None, ["french", "formal"]]):
            model(**batch_of_four)            # or model.generate(...), with beams too

    The rows are computed together, whatever their methods. In training mode gradients reach the attachments named
    and no others. What is active outside the block is so again after it.

    Args:
        model: a model with attachments.
        names: for every row of the batch the name of an attachment, several stacked in order, or None for the bare
            model.

    Returns:
        What to enter with ``with``; it can be entered again.

    Raises:
        AttachError: a name is unknown, or two attachments of one row train the same parameters of the model.
    """
    return Routing(model, names)


def _stacks(model: nn.Module, names: Names) -> tuple[tuple[str, ...], ...]:
    state = state_of(model)
    given: object = names
    if isinstance(given, str) or not isinstance(given, Sequence) or not given:
        raise AttachError(f"names: expected a list with one entry for each row, found {names!r}.")
    stacks = []
    for row, entry in enumerate(names):
        stack = stack_of(entry, f"names: in row {row}")
        if len(set(stack)) != len(stack):
            raise AttachError(f"names: in row {row} an attachment stands twice: {stack!r}.")
        for name in stack:
            state.find(name)
        stacks.append(stack)
    return tuple(stacks)


def _groups(
    names: Sequence[str | None], above: Sequence[Read], used: dict[str, Record]
) -> list[tuple[Placement, Group, Port]]:
    """Return the changes of one level, those of one structure at one joint together, in the order of each method."""
    rows: dict[object, tuple[Placement, list[int], list[Change], Port]] = {}
    for row, name in enumerate(names):
        if name is None:
            continue
        record = used[name]
        for one, key in zip(record.plan.placements, record.structures, strict=True):
            port = joint(one, above[row])
            _, members, changes, _ = rows.setdefault((key, port), (one, [], [], port))
            members.append(row)
            changes.append(record.changes[one.key])
    return [(one, Group(len(names), tuple(members), tuple(found)), port) for one, members, found, port in rows.values()]


def own_values(
    model: nn.Module, rows: Rows, state: State, used: dict[str, Record]
) -> dict[str, dict[str, tuple[nn.Parameter, ...]]]:
    """Return, for modules whose parameters are not those of every row, attribute -> the parameter of every row.

    Where a module holds the same parameter as one inside it, the inner one alone is listed.
    """
    active = [record for record in state.records.values() if record.active]
    trained = {name: record.owners[name] for record in (*used.values(), *active) for name in record.parked}
    modules: dict[str, dict[str, tuple[nn.Parameter, ...]]] = {}
    for name, owners in trained.items():
        current = model.get_parameter(name)
        base = next((parked_beside(model, record, name) for record in active if name in record.parked), current)
        own = {key: _own(model, record, name) for key, record in used.items() if name in record.parked}
        values = tuple(next((own[key] for key in stack if key in own), base) for stack in rows.stacks)
        if all(value is current for value in values):
            continue
        holders = [path.rpartition(".")[::2] for path in owners]
        for path, last in holders:
            if not any(other != path and other.startswith(f"{path}." if path else "") for other, _ in holders):
                modules.setdefault(path, {})[last] = values
    return modules


def _differ(values: dict[str, tuple[nn.Parameter, ...]]) -> bool:
    return any(one is not same[0] for same in values.values() for one in same)


def _route_own(
    model: nn.Module,
    hooks: Hooks,
    rows: Rows,
    modules: dict[str, dict[str, tuple[nn.Parameter, ...]]],
    used: dict[str, Record],
) -> None:
    """Let modules whose parameters attachments train compute every row with its own values."""
    lookups = _lookups(model, used.values())
    for path, attributes in modules.items():
        module = model.get_submodule(path)
        own = OwnRows(module, path, rows, attributes, path in lookups)
        owner = model.get_submodule(path.rpartition(".")[0])
        positions = isinstance(module, nn.Embedding) and hasattr(owner, "compute_bias")
        if positions and not own.uniform:  # T5's relative positions: every row gets a bias of its own
            hooks.method(owner, "compute_bias", PositionBias(owner, own))
        else:
            inside = next((other for other in modules if other != path and other.startswith(f"{path}.")), None)
            if inside is not None and not own.uniform:
                raise AttachError(
                    f"routed(): the attachments named train parameters of {path!r} and of {inside!r} inside it, which "
                    "cannot be told apart by rows; activate them one at a time."
                )
            hooks.method(module, "forward", own)


def _lookups(model: nn.Module, used: Iterable[Record]) -> set[str]:
    """Return the paths of the modules that look up tokens and positions."""
    found = {(one.site.stack_root, one.site.stack) for record in used for one in record.plan.placements}
    paths = {join_path(root, path) for root, table in found for path in (table.tokens, *table.positions) if path}
    tokens = token_embedding(model)
    return paths | {path for path, module in own_modules(model) if module is tokens}


def _own(model: nn.Module, record: Record, name: str) -> nn.Parameter:
    return model.get_parameter(name) if record.active else parked_beside(model, record, name)
