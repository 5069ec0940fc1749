"""Watching a model leaves it as it was, in everything a user can see."""

from __future__ import annotations

import pytest
import torch

from unipetl.errors import ArchitectureError
from unipetl.inference import infer
from unipetl.inference.inputs import example_inputs
from unipetl.inference.tracing import trace
from unipetl.testing import FAMILIES, build
from unipetl.testing.compare import outputs
from unipetl.testing.laws import Snapshot
from unipetl.testing.models import batch


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_watching_changes_nothing(family):
    model = build(family)
    model.train()
    parameters = list(model.parameters())
    parameters[0].requires_grad_(False)
    before, state = Snapshot.of(model), torch.get_rng_state()
    call = batch(model, labels=False)
    result = outputs(model.eval(), call)
    model.train()
    infer(model)
    before.require_unchanged(model, "after watching")
    assert torch.equal(state, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in parameters)
    assert torch.equal(outputs(model.eval(), call), result)


def test_a_forward_pass_that_fails_is_explained_and_changes_nothing():
    model = build("bert")
    before = Snapshot.of(model)
    with pytest.raises(ArchitectureError, match=r"watching one forward pass.*Pass `architecture=`"):
        infer(model, {"input_ids": torch.zeros(1, 3)})
    before.require_unchanged(model, "after watching failed")


def test_attention_is_seen_through_any_implementation():
    for implementation in ("eager", "sdpa"):
        model = build("bart", attn_implementation=implementation)
        seen = trace(model, example_inputs(model)[0])
        cores = [one.path for one in seen.attentions]
        assert len(cores) == len(set(cores)) == 2 + 2 * 3
        assert {one.endswith(("self_attn", "encoder_attn")) for one in cores} == {True}


class Chain(torch.nn.Module):
    """Hands one tensor on, changes it in place, and hands it on again."""

    def __init__(self):
        super().__init__()
        self.same, self.again = torch.nn.Identity(), torch.nn.Identity()

    def forward(self, x):
        x = self.same(x + 1)
        x.add_(1)
        return self.again(x)


def test_a_tensor_is_copied_once_until_it_changes():
    seen = trace(Chain(), {"x": torch.zeros(2, 3)})
    whole, same, again = seen.calls
    assert same.read is same.gave
    assert again.read is again.gave is whole.gave
    assert [float(one.read.max()) for one in (whole, same, again)] == [0, 1, 2]
