"""The tiny models are what they say: repeatable, uneven, and quick to tell apart."""

from __future__ import annotations

import pytest
import torch

from unipetl.testing import FAMILIES, batch, build, family, prompt
from unipetl.testing.compare import differ, loss_of, outputs, same

HEADS = [(one, head) for one in FAMILIES for head in one.heads]


@pytest.mark.parametrize(("which", "head"), HEADS, ids=[f"{one}-{head}" for one, head in HEADS])
def test_every_class_builds_and_learns(which, head):
    model = build(which, head)
    call = batch(model)
    loss_of(model, call).backward()
    again = build(which.name, head)
    same(outputs(again, batch(again)), outputs(model, call), "a second build")
    other = build(which, head, seed=1)
    differ(outputs(other, call), outputs(model, call), "a model of another seed")
    differ(outputs(model, batch(model, seed=1)), outputs(model, call), "another batch")


@pytest.mark.parametrize("padding", ["right", "left"])
def test_padding(padding):
    model = build("bert")
    made = batch(model, rows=3, length=6, padding=padding)
    lengths = made["attention_mask"].sum(dim=1).tolist()
    assert lengths == [6, 4, 2]
    edge = made["attention_mask"][:, 0 if padding == "right" else -1]
    assert edge.tolist() == [1, 1, 1]
    assert made["input_ids"][made["attention_mask"] == 0].eq(model.config.pad_token_id).all()


def test_building_leaves_torch_s_generator_alone():
    state = torch.get_rng_state()
    build("bert")
    batch(build("bert"))
    assert torch.equal(state, torch.get_rng_state())


def test_the_families_are_uneven():
    bart, t5, qwen = build("bart").config, build("t5").config, build("qwen3").config
    assert bart.encoder_layers != bart.decoder_layers
    assert bart.encoder_attention_heads != bart.decoder_attention_heads
    assert t5.num_layers != t5.num_decoder_layers
    assert t5.d_kv * t5.num_heads != t5.d_model
    assert qwen.head_dim * qwen.num_attention_heads != qwen.hidden_size
    assert qwen.num_key_value_heads < qwen.num_attention_heads


def test_prompts_have_no_labels():
    assert set(prompt(build("t5"))) == {"input_ids", "attention_mask"}
    assert set(prompt(build("whisper"))) == {"input_features"}


def test_unknown_names_have_near_matches():
    with pytest.raises(KeyError, match="mbart"):
        family("mbrat")
    with pytest.raises(KeyError, match="causal_lm"):
        build("gpt2", "casual_lm")
