"""Edges of attaching: each of these once computed something else, or kept something it should not."""

from __future__ import annotations

import copy

import pytest
import torch

import unipetl
from unipetl.errors import AttachError
from unipetl.testing.models import batch, build


def test_gradients_from_before_do_not_move_frozen_parameters():
    model = build("roberta")
    model(**batch(model)).loss.backward()
    unipetl.attach(model, "lora(rank=2)")
    frozen = {name: p.detach().clone() for name, p in model.named_parameters() if not p.requires_grad}
    torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1).step()
    assert all(torch.equal(frozen[name], p) for name, p in model.named_parameters() if name in frozen)


@pytest.mark.parametrize("family", ["llama", "t5", "marian"])
def test_given_vectors_get_gradients_under_reentrant_checkpointing(family):
    model = build(family)
    inputs = batch(model)
    vectors = model.get_input_embeddings()(inputs.pop("input_ids")).detach()
    attachment = unipetl.attach(model, "lora(rank=2, init=bert)")
    model.train()
    word = "activation" if hasattr(model, "activation_checkpointing_enable") else "gradient"
    getattr(model, f"{word}_checkpointing_enable")({"use_reentrant": True})
    model(inputs_embeds=vectors, **inputs).loss.backward()
    assert all(values.grad is not None and values.grad.abs().sum() > 0 for values in attachment.tensors().values())


def test_a_mask_given_by_position_counts_positions_as_one_given_by_name():
    model = build("llama")
    attachment = unipetl.attach(model, "prefix_tuning(length=3, mlp=none)")
    with torch.no_grad():
        for values in attachment.tensors().values():
            values.copy_(torch.randn_like(values))
    ids = torch.randint(5, 20, (2, 6))
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    with torch.no_grad():
        by_position = model.model(ids, mask).last_hidden_state
        by_name = model.model(input_ids=ids, attention_mask=mask).last_hidden_state
        plain = model.model(input_ids=ids).last_hidden_state
    assert torch.equal(by_position, by_name)
    assert not torch.allclose(by_position[0], plain[0])


def test_a_model_can_be_copied_after_a_call_that_failed_midway():
    model = build("bart")
    unipetl.attach(model, "parallel_adapter(rank=2)")

    def fail(*_):
        raise MemoryError

    handle = model.model.encoder.layers[0].fc2.register_forward_pre_hook(fail)
    with pytest.raises(MemoryError):
        model(**batch(model))
    handle.remove()
    copied = copy.deepcopy(model)
    with torch.no_grad():
        assert torch.equal(copied(**batch(model)).logits, model(**batch(model)).logits)


def test_what_is_out_of_force_is_not_trained():
    model = build("roberta")
    bare = [p.requires_grad for p in build("roberta").parameters()]
    unipetl.attach(model, "bitfit")
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained
    unipetl.activate(model, None)
    assert not any(p.requires_grad for p in model.parameters())
    unipetl.activate(model, "default")
    assert [name for name, p in model.named_parameters() if p.requires_grad] == trained
    unipetl.detach(model)
    assert [p.requires_grad for p in model.parameters()] == bare


def test_a_user_s_frozen_base_is_still_fine_tuned_by_full():
    model = build("roberta")
    model.base_model.requires_grad_(False)
    assert unipetl.plan("full", model).parameters == sum(p.numel() for p in model.parameters())


def test_a_prompt_takes_no_token_types():
    model = build("gpt2")
    unipetl.attach(model, "prompt_tuning(length=2)")
    inputs = batch(model)
    with pytest.raises(AttachError, match="token_type_ids"):
        model(**inputs, token_type_ids=torch.zeros_like(inputs["input_ids"]))


def test_bitfit_without_the_head_loads_again(tmp_path):
    model = build("roberta")
    unipetl.attach(model, "bitfit", train_head=False)
    unipetl.load(build("roberta"), unipetl.save(model, tmp_path))


@pytest.mark.parametrize("names", [3, [3], [None], ["default", 3], [["default"]]])
def test_what_is_no_name_is_no_name(names):
    model = build("bert")
    unipetl.attach(model, "lora(rank=2)")
    with pytest.raises(AttachError, match="expected the name of an attachment, a list of names, or None; found"):
        unipetl.activate(model, names)
    with pytest.raises(AttachError, match="in row 1 expected the name"):
        unipetl.routed(model, ["default", names])
    with pytest.raises(AttachError, match="expected the name"):
        unipetl.detach(model, 3)
