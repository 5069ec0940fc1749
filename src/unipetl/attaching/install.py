"""Turns the active attachments of a model into hooks, and hooks into nothing again.

[install][] first removes everything it ever put on the model, then builds the hooks that the active
attachments need, from data: attaching, switching, routing and detaching are all this one function. It touches the
modules that have something, and no others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from unipetl.architectures import Port
from unipetl.attaching.entry import BeginHook, EntryHook, PositionHook, VectorsHook
from unipetl.attaching.experts import EXPERT_HOOKS, install_experts
from unipetl.attaching.heads import HeadItem
from unipetl.attaching.hooks import Hooks, take_off
from unipetl.attaching.patches import PatchHook
from unipetl.attaching.ports import InputHook, Item, OutputHook, Step, Tape
from unipetl.attaching.prompts import argument_names, install_prompts, is_prompt_hook
from unipetl.attaching.softmax import SOFTMAX_HOOKS, FirstTape, JoinSoftmax, SoftmaxProgram, WithSoftmax
from unipetl.attaching.state import Record, State
from unipetl.forms import HeadAttention, Heads, Prompt
from unipetl.forms.head_attention import HeadAttentionDelta
from unipetl.insertion import Parallel, Sequential
from unipetl.planning import Placement
from unipetl.planning.joints import joint, read_above
from unipetl.representation import rank


def install(model: nn.Module, state: State) -> None:
    """Make the hooks of ``model`` those of its active attachments, in the order of stacking, or of its routing."""
    uninstall(model)
    _let_compiled_code_see_hooks()
    if state.routing is not None:
        state.routing.install(model, state)
        return
    active = [state.records[name] for name in state.order if state.records[name].active]
    if not active:
        return
    hooks = Hooks(model)
    ports = Ports(model, hooks)
    above = read_above([record.plan for record in active])
    for number, record in enumerate(active):
        for one in record.plan.placements:
            form = one.modification.form
            if isinstance(form, HeadAttention):
                add_heads(model, ports, one, HeadItem(record.changes[one.key]))
            elif not isinstance(form, Prompt):
                add_change(model, ports, one, Item(record.changes[one.key]), number, joint(one, above[number]))
    ports.install()
    install_prompts(model, hooks, active)
    install_stack_hooks(model, hooks, active)


def uninstall(model: nn.Module) -> None:
    """Remove every hook, program and config view of ours."""
    take_off(model)


def _let_compiled_code_see_hooks() -> None:
    """Let torch.compile check hooks that come and go; by default it takes a module without hooks for one for good.

    Code compiled before is dropped, as it knows no better.
    """
    import torch._dynamo.config  # transformers has imported it already

    if torch._dynamo.config.skip_nnmodule_hook_guards:
        torch._dynamo.config.skip_nnmodule_hook_guards = False
        torch._dynamo.reset()


def is_own_hook(hook: Callable[..., Any]) -> bool:
    """Return whether a hook on a module, or what stands before its forward, is one that [install][] put there."""
    own = (InputHook, OutputHook, BeginHook, EntryHook, PositionHook, VectorsHook, *SOFTMAX_HOOKS, *EXPERT_HOOKS)
    return isinstance(hook, own) or is_prompt_hook(hook)


class Ports:
    """Collects what happens at each end of each module, then registers one hook for each."""

    def __init__(self, model: nn.Module, hooks: Hooks) -> None:
        self.model = model
        self.hooks = hooks
        self.ends: dict[tuple[str, str], InputHook | OutputHook] = {}
        self.softmax: dict[str, SoftmaxProgram] = {}
        self.stacked: set[str] = set()
        self.convolutions: set[str] = set()

    def at(self, port: Port) -> InputHook | OutputHook:
        """Return the hook of one end of a module."""
        make: Callable[[], InputHook | OutputHook] = InputHook if port.side == "input" else OutputHook
        if port.module in self.convolutions:
            make = PatchHook
        return self.ends.setdefault((port.module, port.side), make())

    def tape(self, port: Port) -> Tape:
        """Return a new tape that records what passes at ``port``."""
        tape = Tape()
        self.at(port).tapes.append(tape)
        return tape

    def install(self) -> None:
        """Register the hooks; inner representations change first, and within one the attachments in order.

        They stand before hooks of others, so that transformers' recorders of hidden states see the changed ones.
        """
        in_experts = {end: hook for end, hook in self.ends.items() if end[0] in self.stacked}
        install_experts(self.model, self.hooks, in_experts)
        for (path, _), hook in self.ends.items():
            hook.steps.sort(key=lambda step: (step.rank, step.level))
            if path in self.stacked:
                continue
            module = self.model.get_submodule(path)
            if isinstance(hook, InputHook):
                self.hooks.before(module, hook, with_kwargs=True)
            else:
                self.hooks.after(module, hook, prepend=True, with_kwargs=True)


def add_change(
    model: nn.Module,
    ports: Ports,
    one: Placement,
    item: Item,
    level: int,
    port: Port,
    make: type[Step] = Step,
    **step: Any,
) -> None:
    """Let a change join at ``port``; those of one ``level`` at one place read the same h."""
    site, insertion = one.site, one.modification.insertion
    if site.representation == "embedding" and isinstance(model.get_submodule(site.owner), nn.modules.conv._ConvNd):
        ports.convolutions.add(site.owner)
    if site.stacked is not None:
        ports.stacked |= {end.module for end in (site.value, site.normed) if end is not None}
    if isinstance(insertion, Parallel):
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
    place = (level, rank(site.representation), port.columns)
    if steps and (steps[-1].level, steps[-1].rank, steps[-1].columns) == place:
        steps[-1].items.append(item)
    else:
        steps.append(make(rank=place[1], items=[item], columns=port.columns, level=level, **step))


def add_heads(model: nn.Module, ports: Ports, one: Placement, item: HeadItem) -> None:
    """Put a change into an attention: into the attention interface, or into a softmax of the module's own."""
    if item.has_query:
        assert one.site.normed is not None and one.site.query is not None
        item.tape = ports.tape(one.site.normed)
        item.query_module = model.get_submodule(one.site.query.module)
        item.query = one.site.query
    if one.site.softmax is None:
        ports.hooks.heads(model.get_submodule(one.site.owner)).append(item)
    else:
        _softmax_program(model, ports, one).items.append(item)


def _softmax_program(model: nn.Module, ports: Ports, one: Placement) -> SoftmaxProgram:
    """Return the program of an attention that computes its softmax itself; several changes share it."""
    site = one.site
    program = ports.softmax.get(site.owner)
    if program is None:
        assert site.softmax is not None and site.query is not None and isinstance(site.shape, Heads)
        core = model.get_submodule(site.owner)
        inside = f"{site.query.module}.".startswith(f"{site.owner}.")
        tape = FirstTape() if inside else Tape()  # before the attention, the last call counts
        ports.at(Port(site.query.module, "output")).tapes.append(tape)
        scaling = site.softmax / math.sqrt(site.shape.key_dim)
        program = SoftmaxProgram(tape, site.query, site.shape.query_heads, scaling, inside=inside, handed=site.handed)
        ports.softmax[site.owner] = program
        ports.hooks.method(core, "forward", WithSoftmax(program, core.forward))
        ports.hooks.before(model.get_submodule(site.value.module), JoinSoftmax(program), with_kwargs=True)
    return program


def install_stack_hooks(
    model: nn.Module, hooks: Hooks, active: Sequence[Record], stacks: Sequence[Sequence[Record]] = ()
) -> None:
    """Register what stacks with attachments need: gradients under checkpoints, positions beside learned keys.

    ``stacks`` are the attachments of every row, where rows have different ones.
    """
    for root, entry, first_block in sorted({stack for record in active for stack in record.plan.stacks}):
        path = _checkpointed(model, first_block)
        block, inside = model.get_submodule(path), entry.startswith(f"{path}.")
        if entry and not inside:
            hooks.after(model.get_submodule(entry), EntryHook(block))
        hooks.before(model.get_submodule(root), VectorsHook(block, anything=inside), with_kwargs=True)
    for root, deltas in _learned_keys(active).items():
        hooks.before(model.get_submodule(root), BeginHook(tuple(deltas)), with_kwargs=True)
    for root in sorted({root for record in active for root in record.rotary}):
        stack = model.get_submodule(root)
        rows = tuple(any(root in record.rotary for record in row) for row in stacks)
        hooks.before(stack, PositionHook(argument_names(stack), rows), with_kwargs=True)


def _learned_keys(active: Sequence[Record]) -> dict[str, list[HeadAttentionDelta]]:
    """Return the learned keys and values in each stack, by the stack's path."""
    found: dict[str, list[HeadAttentionDelta]] = {}
    for record in active:
        for one in record.plan.placements:
            delta = record.changes[one.key].delta
            if isinstance(delta, HeadAttentionDelta):
                found.setdefault(one.site.stack_root, []).append(delta)
    return found


def _checkpointed(model: nn.Module, block: str) -> str:
    """Return the path of what is run under checkpoints when they are on: a block, or the stage around it."""
    path = block
    while path and not hasattr(model.get_submodule(path), "gradient_checkpointing"):
        path = path.rpartition(".")[0]
    return path or block
