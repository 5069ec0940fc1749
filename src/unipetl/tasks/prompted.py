"""Texts written by a model without encoder: a prompt that is read, and a target that is learnt.

A row holds the prompt as ``input_ids`` and the target, end included, as ``labels``. In a batch the two stand in one
line:

    input_ids   p1 p2 p3 t1 t2 </s> pad        labels   -100 -100 -100 t1 t2 </s> -100

so that the loss is the target's alone. For rows without labels, which is how one generates, prompts are padded on the
left: what is written must follow the prompt at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

#: What the loss leaves out.
IGNORED = -100


@dataclass(frozen=True)
class PromptCollator:
    """Makes a batch of prompts and targets.

    Args:
        padding: the id of padding.
    """

    padding: int

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Return ``input_ids``, ``attention_mask`` and, if the rows have any, ``labels``, each (batch, longest)."""
        prompts = [list(row["input_ids"]) for row in rows]
        if not all("labels" in row for row in rows):
            return left_padded(prompts, self.padding)
        targets = [list(row["labels"]) for row in rows]
        lines = [prompt + target for prompt, target in zip(prompts, targets, strict=True)]
        learnt = [[IGNORED] * len(prompt) + target for prompt, target in zip(prompts, targets, strict=True)]
        longest = max(map(len, lines))
        return {
            "input_ids": torch.tensor([line + [self.padding] * (longest - len(line)) for line in lines]),
            "attention_mask": torch.tensor([[1] * len(line) + [0] * (longest - len(line)) for line in lines]),
            "labels": torch.tensor([line + [IGNORED] * (longest - len(line)) for line in learnt]),
        }


def left_padded(prompts: Sequence[Sequence[int]], padding: int) -> dict[str, Tensor]:
    """Return ``input_ids`` and ``attention_mask`` (batch, longest prompt), filled up on the left."""
    longest = max(map(len, prompts))
    return {
        "input_ids": torch.tensor([[padding] * (longest - len(one)) + list(one) for one in prompts]),
        "attention_mask": torch.tensor([[0] * (longest - len(one)) + [1] * len(one) for one in prompts]),
    }


def taken_apart(batch: Mapping[str, Tensor]) -> tuple[list[list[int]], Tensor]:
    """Return the prompts of a batch with labels, and its targets (batch, longest target), filled up with -100."""
    ids, present, labels = batch["input_ids"], batch["attention_mask"].bool(), batch["labels"]
    prompts = [row[here & (learnt == IGNORED)].tolist() for row, here, learnt in zip(ids, present, labels, strict=True)]
    targets = [row[row != IGNORED] for row in labels]
    longest = max(map(len, targets))
    filled = labels.new_full((len(targets), longest), IGNORED)
    for place, target in enumerate(targets):
        filled[place, : len(target)] = target
    return prompts, filled
