"""Turns the active attachments of a model into hooks, and hooks into nothing again.

[install][] first removes everything it ever put on the model, then builds the hooks that the active
attachments need, from data: attaching, switching and detaching are all this one function.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import nn

from unipetl.architectures import Port
from unipetl.attaching.entry import EntryHook, PositionHook, VectorsHook
from unipetl.attaching.experts import EXPERT_HOOKS, install_experts
from unipetl.attaching.heads import HeadItem, HeadProgram, view_of
from unipetl.attaching.patches import PatchHook
from unipetl.attaching.ports import InputHook, Item, OutputHook, Step, Tape
from unipetl.attaching.prompts import argument_names, install_prompts, is_prompt_hook
from unipetl.attaching.softmax import SOFTMAX_HOOKS, BeginSoftmax, EndSoftmax, FirstTape, JoinSoftmax, SoftmaxProgram
from unipetl.attaching.state import Record, State
from unipetl.forms import HeadAttention, Heads, Prompt
from unipetl.insertion import Parallel, Sequential
from unipetl.planning import Placement
from unipetl.representation import rank


def install(model: nn.Module, state: State) -> None:
    """Make the hooks of ``model`` those of its active attachments, in the order of stacking."""
    uninstall(model)
    active = [state.records[name] for name in state.order if state.records[name].active]
    ports = Ports(model)
    for record in active:
        for one in record.plan.placements:
            form = one.modification.form
            if isinstance(form, HeadAttention):
                _install_heads(model, ports, record, one)
            elif not isinstance(form, Prompt):
                _install_change(model, ports, record, one)
    ports.install()
    install_prompts(model, active)
    _install_stack_hooks(model, active)


def uninstall(model: nn.Module) -> None:
    """Remove every hook, program and config view of ours."""
    for module in model.modules():
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            for number, hook in list(hooks.items()):
                if is_own_hook(hook):
                    del hooks[number]
                    module._forward_hooks_with_kwargs.pop(number, None)
                    module._forward_hooks_always_called.pop(number, None)
                    module._forward_pre_hooks_with_kwargs.pop(number, None)
        if "_unipetl_heads" in module.__dict__:
            core: Any = module
            del core.__dict__["_unipetl_heads"]
            core.config = core.config._unipetl_config


def is_own_hook(hook: Callable[..., Any]) -> bool:
    """Return whether a hook on a module is one that [install][] put there."""
    own = (InputHook, OutputHook, EntryHook, PositionHook, VectorsHook, *SOFTMAX_HOOKS, *EXPERT_HOOKS)
    return isinstance(hook, own) or is_prompt_hook(hook)


class Ports:
    """Collects what happens at each end of each module, then registers one hook for each."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.stacked: set[str] = set()
        self.convolutions: set[str] = set()
        self.hooks: dict[tuple[str, str], InputHook | OutputHook] = {}

    def at(self, port: Port) -> InputHook | OutputHook:
        """Return the hook of one end of a module."""
        make: Callable[[], InputHook | OutputHook] = InputHook if port.side == "input" else OutputHook
        if port.module in self.convolutions:
            make = PatchHook
        return self.hooks.setdefault((port.module, port.side), make())

    def tape(self, port: Port) -> Tape:
        """Return a new tape that records what passes at ``port``."""
        tape = Tape()
        self.at(port).tapes.append(tape)
        return tape

    def install(self) -> None:
        """Register the hooks; inner representations change first, and within one the attachments in order.

        They stand before hooks of others, so that transformers' recorders of hidden states see the changed ones.
        """
        install_experts(self.model, {end: hook for end, hook in self.hooks.items() if end[0] in self.stacked})
        for (path, _), hook in self.hooks.items():
            hook.steps.sort(key=lambda step: step.rank)
            if path in self.stacked:
                continue
            module = self.model.get_submodule(path)
            if isinstance(hook, InputHook):
                module.register_forward_pre_hook(hook, with_kwargs=True)
            else:
                module.register_forward_hook(hook, prepend=True, with_kwargs=True)


def _install_change(model: nn.Module, ports: Ports, record: Record, one: Placement) -> None:
    site, insertion = one.site, one.modification.insertion
    item = Item(record.changes[one.key])
    port = site.value
    if site.representation == "embedding" and isinstance(model.get_submodule(site.owner), nn.modules.conv._ConvNd):
        ports.convolutions.add(site.owner)
    if site.stacked is not None:
        ports.stacked |= {end.module for end in (site.value, site.normed) if end is not None}
    if isinstance(insertion, Parallel):
        port = site.join
        reads = site.residual if insertion.reads == "residual" else site.normed
        assert reads is not None
        if (reads.module, reads.side, port.side) == (port.module, "input", "output"):
            item.own_input = True
        else:
            item.tape = ports.tape(reads)
    elif isinstance(insertion, Sequential) and insertion.reads == "normed":
        assert site.norm_after is not None
        item.norm = model.get_submodule(site.norm_after)
    steps = ports.at(port).steps
    place = (rank(site.representation), port.columns)
    if steps and (steps[-1].rank, steps[-1].columns) == place and _same_owner(steps[-1], record):
        steps[-1].items.append(item)
    else:
        steps.append(Step(rank=place[0], items=[item], columns=port.columns))


def _same_owner(step: Step, record: Record) -> bool:
    return any(step.items[0].change is change for change in record.changes.values())


def _install_heads(model: nn.Module, ports: Ports, record: Record, one: Placement) -> None:
    core = model.get_submodule(one.site.owner)
    if one.site.softmax is not None:
        _install_softmax(model, ports, record, one)
        return
    if "_unipetl_heads" not in core.__dict__:
        core.__dict__["_unipetl_heads"] = HeadProgram()
        core.config = view_of(core.config)
    core.__dict__["_unipetl_heads"].append(_head_item(model, ports, record, one))


def _head_item(model: nn.Module, ports: Ports, record: Record, one: Placement) -> HeadItem:
    item = HeadItem(record.changes[one.key])
    if item.delta.layer_norm is not None:
        assert one.site.normed is not None and one.site.query is not None
        item.tape = ports.tape(one.site.normed)
        item.query_module = model.get_submodule(one.site.query.module)
        item.query = one.site.query
    return item


def _install_softmax(model: nn.Module, ports: Ports, record: Record, one: Placement) -> None:
    """Put a change into an attention that computes its softmax itself; several share one program."""
    site, core = one.site, model.get_submodule(one.site.owner)
    begin = next((hook for hook in core._forward_pre_hooks.values() if isinstance(hook, BeginSoftmax)), None)
    if begin is None:
        assert site.softmax is not None and site.query is not None and isinstance(site.shape, Heads)
        inside = f"{site.query.module}.".startswith(f"{site.owner}.")
        tape = FirstTape() if inside else Tape()  # before the attention, the last call counts
        ports.at(Port(site.query.module, "output")).tapes.append(tape)
        scaling = site.softmax / math.sqrt(site.shape.key_dim)
        begin = BeginSoftmax(SoftmaxProgram(tape, site.query, site.shape.query_heads, scaling, inside=inside))
        core.register_forward_pre_hook(begin)
        core.register_forward_hook(EndSoftmax(begin.program), always_call=True)
        join = JoinSoftmax(begin.program)
        model.get_submodule(site.value.module).register_forward_pre_hook(join, with_kwargs=True)
    begin.program.items.append(_head_item(model, ports, record, one))


def _install_stack_hooks(model: nn.Module, active: list[Record]) -> None:
    for root, entry, first_block in sorted({stack for record in active for stack in record.plan.stacks}):
        block = _checkpointed(model, first_block)
        if entry:
            model.get_submodule(entry).register_forward_hook(EntryHook(block))
        model.get_submodule(root).register_forward_pre_hook(VectorsHook(block), with_kwargs=True)
    rotary = {
        one.site.stack_root
        for record in active
        for one in record.plan.placements
        if one.site.stack.rotary and isinstance(one.modification.form, HeadAttention)
    }
    for root in sorted(rotary):
        stack = model.get_submodule(root)
        hook: Any = PositionHook(argument_names(stack))
        stack.register_forward_pre_hook(hook, with_kwargs=True)


def _checkpointed(model: nn.Module, block: str) -> nn.Module:
    """Return what is run under checkpoints when they are on: a block, or the stage around it."""
    path = block
    while path and not hasattr(model.get_submodule(path), "gradient_checkpointing"):
        path = path.rpartition(".")[0]
    return model.get_submodule(path or block)
