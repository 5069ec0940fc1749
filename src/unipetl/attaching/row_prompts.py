"""Prompts of other lengths in each row, exactly.

Every row gets as many places as the longest prompt has. A shorter prompt stands at their end, next to the tokens, and
the places before it are padding: hidden, and in front of any padding that the row has itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from unipetl.attaching.hooks import Hooks
from unipetl.attaching.prompts import Prompts, arranged, install_prompt_hooks, prompts_of
from unipetl.attaching.rows import Rows
from unipetl.attaching.state import Record
from unipetl.forms import Prompt
from unipetl.forms.prompt import PromptDelta


@dataclass
class RowPrompts(Prompts):
    """The prompts of one stack; ``own`` are those of every row, in order.

    Attributes:
        learned: whether a row has learned keys beside rotated queries, which count positions from the mask as well.
    """

    rows: Rows = field(default_factory=lambda: Rows(()))
    own: list[list[PromptDelta]] = field(default_factory=list)
    learned: list[bool] = field(default_factory=list)

    @property
    def lengths(self) -> list[int]:
        """The number of prompt vectors of every row named."""
        return [sum(delta.prompt.shape[0] for delta in row) for row in self.own]

    @property
    def length(self) -> int:
        """The largest number of prompt vectors of a row."""
        return max(self.lengths)

    def prepend(self, vectors: Tensor) -> Tensor:
        """Map (batch, n, d) to (batch, l + n, d)."""
        blocks = []
        for row, length in zip(self.own, self.lengths, strict=True):
            empty = vectors.new_zeros(self.length - length, vectors.shape[-1])
            blocks.append(torch.cat([empty, *(delta.prompt.to(vectors.dtype) for delta in row)]))
        prompt = self._shared_out(torch.stack(blocks), vectors.shape[0])
        return arranged(torch.cat([prompt, vectors], dim=1), self.order)

    def mask(self, like: Tensor) -> Tensor:
        """Return the prompts' part (batch, l) of a mask ``like`` (batch, n): 0 where a row has none."""
        empty = torch.tensor([self.length - length for length in self.lengths], device=like.device)
        valid = torch.arange(self.length, device=like.device) >= empty[:, None]
        return self._shared_out(valid, like.shape[0]).to(like.dtype)

    def order_for(self, mask: Tensor) -> Tensor:
        """Return the order: places without a prompt, leading padding, prompt, tokens."""
        prompt = self.mask(mask).long() * 2
        tokens = 1 + 2 * (mask.long().cumsum(dim=-1) > 0).long()
        return torch.cat([prompt, tokens], dim=1).argsort(dim=1, stable=True)

    def counted(self, batch: int, device: torch.device) -> Tensor:
        """Return the rows with a prompt or learned keys; the others count positions as the model does."""
        has = [length > 0 or keys for length, keys in zip(self.lengths, self.learned, strict=True)]
        return self._shared_out(torch.tensor(has, device=device), batch)[:, None]

    def _shared_out(self, values: Tensor, batch: int) -> Tensor:
        each = self.rows.each(batch)
        return values if each == 1 else values.repeat_interleave(each, dim=0)


def install_row_prompts(model: nn.Module, hooks: Hooks, rows: Rows, used: Mapping[str, Record]) -> None:
    """Register the hooks of every row's prompts."""
    stacks: dict[str, RowPrompts] = {}
    for row, names in enumerate(rows.stacks):
        for record in (used[name] for name in names):
            for one in record.plan.placements:
                if not isinstance(one.modification.form, Prompt):
                    continue
                root = one.site.stack_root
                if root not in stacks:
                    stacks[root] = prompts_of(model, one, RowPrompts, rows=rows, own=[[] for _ in rows.stacks])
                delta = record.changes[one.key].delta
                assert isinstance(delta, PromptDelta)
                stacks[root].own[row].append(delta)
    for root, prompts in stacks.items():
        prompts.learned = [any(root in used[name].rotary for name in names) for names in rows.stacks]
        install_prompt_hooks(model, hooks, root, prompts)
