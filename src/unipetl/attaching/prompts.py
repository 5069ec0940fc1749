"""Prompt vectors in front of a stack's tokens.

The stack is lengthened where its tokens enter and shortened where they leave, so everything outside sees the
usual shapes, and a token keeps the position it had. In a row that starts with padding the prompt stands
between the padding and the tokens, so that relative positions and sliding windows see what they see without
it. The decoder of an encoder-decoder model sees the prompt's results among the encoder's, as in the released
code of He et al. 2022.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from unipetl.architectures import StackTable
from unipetl.attaching.hooks import Hooks
from unipetl.attaching.state import Record
from unipetl.errors import AttachError
from unipetl.forms import Prompt
from unipetl.forms.prompt import PromptDelta
from unipetl.planning import Placement


@dataclass
class Prompts:
    """The active prompts of one stack, and whether the call under way has lengthened it.

    Attributes:
        tokens: the token embedding.
        total: l + n in the call under way.
        order: places in [prompt; tokens] in the order of the call under way; None is that order itself.
        scale: the factor the stack puts on token vectors outside the embedding.
    """

    table: StackTable
    tokens: nn.Module
    scale: float = 1.0
    deltas: list[PromptDelta] = field(default_factory=list)
    lengthened: bool = False
    total: int = 0
    order: Tensor | None = None

    @property
    def length(self) -> int:
        """The number of prompt vectors."""
        return sum(delta.prompt.shape[0] for delta in self.deltas)

    def prepend(self, vectors: Tensor) -> Tensor:
        """Map (batch, n, d) to (batch, l + n, d)."""
        for delta in reversed(self.deltas):
            vectors = delta(vectors)
        return arranged(vectors, self.order)

    def mask(self, like: Tensor) -> Tensor:
        """Return the prompt's part (batch, l) of a mask ``like`` (batch, n)."""
        return torch.ones(like.shape[0], self.length, dtype=like.dtype, device=like.device)

    def order_for(self, mask: Tensor) -> Tensor | None:
        """Return where [prompt; tokens] stand in every row, (batch, l + n); None is that order itself."""
        return order_of(mask, self.length)

    def counted(self, batch: int, device: torch.device) -> Tensor | None:
        """Return which rows, (batch, 1), have their positions counted from the mask; None means all."""
        del batch, device
        return None

    def without(self, part: Tensor) -> Tensor:
        """Map (batch, l + n, d) to the tokens' (batch, n, d)."""
        if self.order is None:
            return part[:, self.length :]
        return arranged(part, self.order.argsort(dim=1)[:, self.length :])


def arranged(rows: Tensor, order: Tensor | None) -> Tensor:
    """Map (batch or 1, m, ...) to the same with the second axis in ``order`` (batch, k); None leaves it alone."""
    if order is None:
        return rows
    index = order.reshape(*order.shape, *(1 for _ in rows.shape[2:])).expand(-1, -1, *rows.shape[2:])
    return rows.expand(len(order), *rows.shape[1:]).gather(1, index)


def order_of(mask: Tensor, length: int) -> Tensor | None:
    """Return, for rows of l prompt vectors and n tokens, the order that puts a row's leading padding first.

    ``mask`` is (batch, n); the result (batch, l + n), or None where no row starts with padding.
    """
    if bool(mask[:, 0].all()):
        return None
    padding = (mask.long().cumsum(dim=-1) == 0).sum(dim=-1, keepdim=True)
    places = torch.arange(length + mask.shape[1], device=mask.device)[None]
    return torch.where(
        places < padding, places + length, torch.where(places < padding + length, places - padding, places)
    )


@dataclass
class LengthenStack:
    """Forward pre-hook on a stack: lengthens tokens, mask and positions."""

    prompts: Prompts
    names: tuple[str, ...]

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the lengthened arguments, all by name."""
        kwargs = {**dict(zip(self.names, args, strict=False)), **kwargs}
        prompts, table = self.prompts, self.prompts.table
        ids, embeds, mask = (kwargs.get(name) for name in ("input_ids", "inputs_embeds", "attention_mask"))
        source = ids if ids is not None else embeds
        if source is None:
            return None
        batch, n = source.shape[:2]
        past = _past_length(kwargs.get("past_key_values"))
        prompts.lengthened = past == 0
        prompts.total = prompts.length + n
        seen = max(past - prompts.length, 0)
        if isinstance(mask, dict) or (isinstance(mask, Tensor) and mask.dim() != 2):
            raise AttachError(
                "prompt tuning needs the plain (batch, tokens) attention mask; this call prepared a larger one "
                "(static caches do). Use a dynamic cache, or a prefix instead of a prompt."
            )
        if kwargs.get("token_type_ids") is not None and table.prompt_at == "tokens":
            raise AttachError(
                f"prompt tuning on {type(module).__name__} takes no token_type_ids: prompt vectors have no type, "
                "and this model embeds types as tokens. Leave them out, or use a prefix instead of a prompt."
            )
        if mask is None:
            mask = torch.ones(batch, seen + n, dtype=torch.long, device=source.device)
        order = prompts.order_for(mask)
        prompts.order = order if prompts.lengthened else None
        positions = kwargs.get("position_ids")
        if positions is None and "position_ids" in self.names and table.prompt_at == "tokens" and table.causal:
            positions = _positions(mask, n, seen, count_padding=table.rotary)
            counted = prompts.counted(batch, mask.device)
            if counted is not None:
                positions = torch.where(counted, positions, _positions(mask, n, seen, count_padding=False))
        if prompts.lengthened and positions is not None and table.rotary:
            before = torch.arange(-prompts.length, 0, device=positions.device).expand(positions.shape[0], -1)
            positions = arranged(torch.cat([before, positions], dim=1), order)
        if positions is not None:
            kwargs["position_ids"] = positions
        kwargs["attention_mask"] = arranged(torch.cat([prompts.mask(mask), mask], dim=1), order)
        if prompts.lengthened and table.prompt_at == "tokens":
            tokens = prompts.tokens(ids) * prompts.scale if embeds is None else embeds
            kwargs["inputs_embeds"] = prompts.prepend(tokens)
            kwargs["input_ids"] = None
        return (), kwargs


def _positions(mask: Tensor, n: int, seen: int, *, count_padding: bool) -> Tensor:
    if count_padding:
        return (mask.long().cumsum(-1) - 1).clamp(min=0)[:, -n:]
    return torch.arange(seen, seen + n, device=mask.device)[None]


def _past_length(cache: Any) -> int:
    return 0 if cache is None else int(cache.get_seq_length())


@dataclass
class LengthenEntry:
    """Forward pre-hook where summed embeddings enter: puts the prompt in front."""

    prompts: Prompts

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> Any:
        """Return the lengthened argument."""
        return (self.prompts.prepend(args[0]), *args[1:]) if self.prompts.lengthened else None


@dataclass
class ShortenPositions:
    """Forward pre-hook on a position embedding that is called with the lengthened shape or positions."""

    prompts: Prompts

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the arguments without the prompt: a shape, a (batch, l + n) tensor for it, or positions."""
        length, lengthened = self.prompts.length, self.prompts.lengthened
        positions = kwargs.get("position_ids")
        if isinstance(positions, Tensor):  # BART's decoder counts them itself, what its cache holds included
            return args, {**kwargs, "position_ids": positions[..., :-length] if lengthened else positions - length}
        if not lengthened or not args:
            return None
        first = args[0]
        if isinstance(first, torch.Size):
            return (torch.Size([first[0], first[1] - length, *first[2:]]), *args[1:]), kwargs
        if first.is_floating_point():  # BART's encoder passes one column of the vectors, for its shape
            return (first[:, length:], *args[1:]), kwargs
        return None


@dataclass
class PadPositions:
    """Forward hook on a position embedding: prompt vectors get no position."""

    prompts: Prompts

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Any:
        """Return (..., l + n, d) with zeros in front."""
        if not self.prompts.lengthened:
            return None
        padded, order = nn.functional.pad(output, (0, 0, self.prompts.length, 0)), self.prompts.order
        return padded if order is None else arranged(padded if padded.dim() == 3 else padded[None], order)


@dataclass
class ShortenResult:
    """Forward hook where tokens leave: takes the prompt's results away."""

    prompts: Prompts

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """Return the output with every (batch, l + n, d) tensor cut to (batch, n, d)."""
        if not self.prompts.lengthened:
            return None
        if isinstance(output, tuple):
            return tuple(self._cut(part) for part in output)
        for name, part in output.items():
            output[name] = tuple(map(self._cut, part)) if name == "hidden_states" else self._cut(part)
        return output

    def _cut(self, part: Any) -> Any:
        lengthened = isinstance(part, Tensor) and part.dim() == 3 and part.shape[1] == self.prompts.total
        return self.prompts.without(part) if lengthened else part


@dataclass
class LengthenMemory:
    """Forward pre-hook on a decoder: lets it see the prompt's results among the encoder's."""

    prompts: Prompts
    names: tuple[str, ...]

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the arguments with the memory's mask lengthened to the memory."""
        kwargs = {**dict(zip(self.names, args, strict=False)), **kwargs}
        memory, mask = kwargs.get("encoder_hidden_states"), kwargs.get("encoder_attention_mask")
        if memory is None or (mask is not None and mask.dim() != 2):
            return None
        tokens = memory.shape[1] - self.prompts.length
        if mask is None and self.prompts.lengthened and memory.shape[1] == self.prompts.total:
            mask = torch.ones(memory.shape[0], tokens, dtype=torch.long, device=memory.device)
        if mask is None or mask.shape[1] != tokens:
            return None
        whole = torch.cat([self.prompts.mask(mask), mask], dim=1)
        kwargs["encoder_attention_mask"] = arranged(whole, self.prompts.order_for(mask))
        return (), kwargs


_HOOKS = (LengthenStack, LengthenEntry, ShortenPositions, PadPositions, ShortenResult, LengthenMemory)


def is_prompt_hook(hook: object) -> bool:
    """Return whether ``hook`` is one of this module's."""
    return isinstance(hook, _HOOKS)


def install_prompts(model: nn.Module, hooks: Hooks, active: list[Record]) -> None:
    """Register the hooks of every active prompt."""
    stacks: dict[str, Prompts] = {}
    for record in active:
        for one in record.plan.placements:
            if isinstance(one.modification.form, Prompt):
                root = one.site.stack_root
                if root not in stacks:
                    stacks[root] = prompts_of(model, one, Prompts)
                delta = record.changes[one.key].delta
                assert isinstance(delta, PromptDelta)
                stacks[root].deltas.append(delta)
    for root, prompts in stacks.items():
        install_prompt_hooks(model, hooks, root, prompts)


P = TypeVar("P", bound=Prompts)


def prompts_of(model: nn.Module, one: Placement, kind: type[P], **fields: Any) -> P:
    """Return the prompts of the stack in which ``one`` is, none as yet."""
    table, stack = one.site.stack, model.get_submodule(one.site.stack_root)
    scale = float(getattr(stack, table.scale)) if table.scale else 1.0
    return kind(table, stack.get_submodule(table.tokens), scale, **fields)


def install_prompt_hooks(model: nn.Module, hooks: Hooks, root: str, prompts: Prompts) -> None:
    """Register what lengthens and shortens one stack."""
    stack, table = model.get_submodule(root), prompts.table
    hooks.before(stack, LengthenStack(prompts, argument_names(stack)), with_kwargs=True)
    if table.prompt_at == "entry":
        hooks.before(stack.get_submodule(table.entry), LengthenEntry(prompts))
    for path in table.positions:
        embedding = stack.get_submodule(path)
        hooks.before(embedding, ShortenPositions(prompts), with_kwargs=True)
        hooks.after(embedding, PadPositions(prompts))
    decoder = _decoder_beside(model, root)
    if decoder is not None:
        hooks.before(decoder, LengthenMemory(prompts, argument_names(decoder)), with_kwargs=True)
        return
    parent = table.blocks.rpartition(".")[0]
    if parent:
        hooks.after(stack.get_submodule(parent), ShortenResult(prompts))
    hooks.after(stack, ShortenResult(prompts))


def argument_names(module: nn.Module) -> tuple[str, ...]:
    """Return the names of the arguments of a module's forward, in order."""
    return tuple(inspect.signature(module.forward).parameters)


def _decoder_beside(model: nn.Module, root: str) -> nn.Module | None:
    parent, _, own = root.rpartition(".")
    if own != "encoder":
        return None
    return model.get_submodule(parent)._modules.get("decoder")
