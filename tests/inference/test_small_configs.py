"""A small config keeps every kind of layer, and the parts of a model that fit each other."""

from __future__ import annotations

import pytest
import torch

import unipetl
from unipetl.inference.small import small_config
from unipetl.testing.calls import call_reaching
from unipetl.testing.coverage import build_type, check_type


def small(name, **settings):
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return small_config(CONFIG_MAPPING[name](**settings), heads=True)


def test_kinds_that_repeat_are_kept_up_to_the_last():
    config = small("jamba")  # attention in every eighth layer from the fifth, experts in every second
    assert config.num_hidden_layers == 5
    assert config.layers_block_type == ["mamba"] * 4 + ["attention"]
    assert small("recurrent_gemma").num_hidden_layers == 3


def test_layers_that_a_list_numbers_keep_their_number_among_those_kept():
    config = small("bamba", attn_layer_indices=[9, 18, 27])
    assert config.num_hidden_layers == 2
    assert config.attn_layer_indices == [1]


def test_layers_that_share_keys_have_one_of_their_kind_before_them():
    config = small("gemma3n_text")
    assert config.layer_types == ["sliding_attention", "full_attention"] * 2
    assert config.num_kv_shared_layers == 2


@pytest.mark.parametrize("name", ["blip-2", "zamba2"])
def test_parts_fit_each_other(name):
    model = build_type(name)
    assert sum(parameter.numel() for parameter in model.parameters()) < 2_000_000
    assert unipetl.plan("lora(rank=2)", model).placements


def test_an_ffn_is_found_beside_a_wider_state_space_layer():
    model = build_type("falcon_h1")
    places = {one.site.value.module for one in unipetl.plan("lora(rank=2, at='ffn.down')", model).placements}
    assert places == {f"model.layers.{layer}.feed_forward.down_proj" for layer in range(2)}


@pytest.mark.parametrize("name", ["decision_transformer", "patchtst", "time_series_transformer", "siglip2"])
def test_models_of_series_and_of_flat_patches_are_called(name):
    model = build_type(name)
    architecture = unipetl.plan("adapter(rank=2)", model).architecture
    call, reached = call_reaching(model, architecture)
    assert len(reached.stacks) == len(architecture.stacks)
    assert all(value.shape[0] == 2 for value in call.values())
    assert unipetl.plan("adapter(rank=2)", model).placements


def test_numbers_of_the_default_dtype_do_not_keep_a_type_from_the_contract():
    row = check_type("xglm", methods={"prefix_tuning": "prefix_tuning(length=2)"})
    assert row.status == "checked"
    assert row.methods == {"prefix_tuning": "ok"}
    assert torch.get_default_dtype() == torch.float32


def test_a_tower_gives_vectors_of_the_texts_width():
    config = small("qwen2_vl")
    assert config.vision_config.hidden_size == config.text_config.hidden_size
    assert config.vision_config.embed_dim < 100
