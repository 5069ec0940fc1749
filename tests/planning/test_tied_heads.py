"""A tied output projection: trained alone it gets values of its own, and is tied again on detaching."""

from __future__ import annotations

import copy

import pytest
import torch

import unipetl
from unipetl.testing.models import batch, build


def logits(model):
    with torch.no_grad():
        return model(**batch(model)).logits


@pytest.mark.parametrize("family", ["bart", "t5", "gpt2"])
def test_head_only_leaves_the_embeddings_alone(family, tmp_path):
    model = build(family)
    output, tokens = model.get_output_embeddings(), model.get_input_embeddings()
    assert output.weight is tokens.weight, "the family is not tied: the test says nothing"
    tied, before, bare = output.weight, tokens.weight.detach().clone(), logits(model)
    attachment = unipetl.attach(model, "head_only")
    assert attachment.plan.parameters == tied.numel()
    assert torch.equal(logits(model), bare)
    model(**batch(model)).loss.backward()
    assert output.weight.grad is not None
    assert tokens.weight.grad is None
    with torch.no_grad():
        output.weight.add_(torch.randn_like(output.weight))
    assert torch.equal(tokens.weight, before)
    changed = logits(model)
    assert not torch.equal(changed, bare)

    twin = copy.deepcopy(model)
    assert torch.equal(logits(twin), changed)
    unipetl.detach(twin)
    assert twin.get_output_embeddings().weight is twin.get_input_embeddings().weight

    fresh = build(family)
    unipetl.load(fresh, unipetl.save(model, tmp_path))
    assert torch.equal(logits(fresh), changed)

    unipetl.activate(model, None)
    assert torch.equal(logits(model), bare)
    unipetl.detach(model)
    assert output.weight is tied is tokens.weight
    assert torch.equal(tied, before)
    assert tied.requires_grad


def test_two_attachments_share_the_untied_projection_and_the_last_ties_it_again():
    model = build("bart")
    tied, bare = model.lm_head.weight, logits(model)
    unipetl.attach(model, "head_only", name="a")
    with torch.no_grad():
        model.lm_head.weight.add_(1.0)
    first = logits(model)
    unipetl.activate(model, None)
    unipetl.attach(model, "head_only", name="b")
    assert torch.equal(logits(model), bare)
    unipetl.detach(model, "b")
    unipetl.activate(model, "a")
    assert torch.equal(logits(model), first)
    unipetl.detach(model, "a")
    assert model.lm_head.weight is tied


def test_a_failure_ties_again(monkeypatch):
    model = build("bart")
    tied = model.lm_head.weight
    monkeypatch.setattr("unipetl.attaching.attachment.hang", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        unipetl.attach(model, "head_only")
    assert model.lm_head.weight is tied
    assert tied.requires_grad


def test_full_fine_tuning_stays_tied():
    model = build("bart")
    unipetl.attach(model, "full + head_only")
    assert model.lm_head.weight is model.get_input_embeddings().weight


def test_what_attaching_froze_is_still_the_model_s_own_to_train():
    model = build("roberta")
    unipetl.attach(model, "lora(rank=2)", name="first", train_head=False)
    biases = unipetl.attach(model, "bitfit", name="second", train_head=False)
    alone = unipetl.plan("bitfit", build("roberta"), train_head=False)
    assert [name for name, _ in biases.plan.trained] == [name for name, _ in alone.trained]
