"""What the equivalence tests share: models, random attachments, and the oracle's run of a whole model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

import unipetl
from equivalence.oracle_blocks import NoChange, Stack, run_stack
from equivalence.oracle_changes import Changes
from equivalence.oracle_weights import read
from unipetl.testing import batch, build

#: Family of the tiny models -> what is particular about it.
ORACLE_FAMILIES = ("roberta", "bart", "mbart", "t5", "t5_gated", "gpt2", "llama")
EXACT = {"rtol": 0.0, "atol": 1e-12}
CLOSE = {"rtol": 0.0, "atol": 1e-10}


@dataclass
class Case:
    """A bare base model in float64, a padded batch for it, and its weights as the oracle's stacks."""

    model: Any
    inputs: dict[str, Tensor]
    stacks: list[Stack]

    def real(self, name: str, rows: Tensor) -> Tensor:
        """Return rows (b, n, d) with those of padding at zero in rotary models, whose phases are nobody's business."""
        if self.stacks[0].rotate is None:
            return rows
        return rows * self.inputs["attention_mask"][..., None]

    def run(self) -> dict[str, Tensor]:
        """Return the model's last hidden states, per stack."""
        with torch.no_grad():
            out = self.model(**self.inputs)
        if len(self.stacks) == 1:
            return {self.stacks[0].name: out.last_hidden_state}
        return {"encoder": out.encoder_last_hidden_state, "decoder": out.last_hidden_state}

    def oracle(self, changes: NoChange | Changes | None = None) -> dict[str, Tensor]:
        """Return the same, from plain functions."""
        changes = NoChange() if changes is None else changes
        ids, mask = self.inputs["input_ids"], self.inputs["attention_mask"]
        first, *others = self.stacks
        last, mask = run_stack(first, changes, ids, mask)
        result = {first.name: last}
        for stack in others:
            own = self.inputs["decoder_input_ids"]
            result[stack.name], _ = run_stack(stack, changes, own, torch.ones_like(own), last, mask)
        return result


@cache
def case(family: str, padding: str = "right", **settings: Any) -> Case:
    """Return the case of a family; one per process, so a test must leave its model bare."""
    model = build(family, "base", dtype=torch.float64, **settings)
    return Case(model, batch(model, padding=padding, labels=False, seed=3), read(model))


def randomize(tensors: dict[str, Tensor], seed: int = 5, spread: float = 0.5) -> None:
    """Draw every tensor of an attachment anew, in place, far from its initial values."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name in sorted(tensors):
            noise = torch.randn(tensors[name].shape, generator=generator, dtype=torch.float64).to(tensors[name].dtype)
            tensors[name].copy_(noise * spread + (1.0 if name.endswith(("scale", "norm.weight", "factor")) else 0.0))


def compare(one: Case, method: unipetl.Method | str, *, key_width: int = 0, moves: bool = True) -> None:
    """Assert that the attached model computes what the oracle computes, that it is not nothing, and detach.

    Every tensor of the attachment must have been used by the oracle: a place that one of the two does not know
    would else go unseen.
    """
    bare = one.run()
    attachment = unipetl.attach(one.model, method)
    try:
        tensors = attachment.tensors()
        randomize(tensors)
        got = one.run()
        changes = Changes(attachment.method, tensors, key_width=key_width)
        want = one.oracle(changes)
        assert changes.used >= set(changes.tensors), "the oracle has no place for some tensors"
    finally:
        attachment.detach()
    for name, expected in want.items():
        shown = got[name]
        assert shown.shape == expected.shape, name
        shown, expected = one.real(name, shown), one.real(name, expected)
        torch.testing.assert_close(shown, expected, **CLOSE, msg=lambda text, name=name: f"{name}: {text}")
    if moves:
        last = list(want)[-1]
        rows = bare[last].shape[1]
        assert (got[last][:, -rows:] - bare[last]).abs().max() > 1e-3
    after = one.run()
    assert all(torch.equal(after[name], bare[name]) for name in bare), "detaching did not restore the model"
