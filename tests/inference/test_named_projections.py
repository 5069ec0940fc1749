"""Queries, keys and values of families that name them: inference reads no such names, so they are an oracle."""

from __future__ import annotations

import pytest
import transformers

from unipetl.architectures import Columns
from unipetl.inference import infer
from unipetl.testing import randomize

HEADS, SIZE = 4, 8
SMALL = {
    "vocab_size": 50, "hidden_size": HEADS * SIZE, "num_hidden_layers": 2, "num_attention_heads": HEADS,
    "intermediate_size": 20, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
OLD = {"n_embd": HEADS * SIZE, "n_layer": 2, "n_head": HEADS, "n_positions": 40, "rotary_dim": 4, "vocab_size": 50}
LATENT = {
    "q_lora_rank": 12, "kv_lora_rank": 10, "qk_nope_head_dim": 6, "qk_rope_head_dim": 4, "v_head_dim": 5,
    "n_routed_experts": 4, "num_experts_per_tok": 2, "first_k_dense_replace": 1, "moe_intermediate_size": 8,
    "n_group": 1, "topk_group": 1, "num_key_value_heads": HEADS,
}  # fmt: skip
PLAIN = ("q_proj", "k_proj", "v_proj")
GROUPED = {"num_key_value_heads": 2, "head_dim": SIZE}
FAMILIES = {
    "GPTJ": (OLD, PLAIN, "out_proj"),
    "GPTNeo": ({"num_layers": 2, "num_heads": HEADS, "attention_types": [[["global", "local"], 1]]}, PLAIN, "out_proj"),
    "OPT": ({"ffn_dim": 20, "word_embed_proj_dim": 32}, PLAIN, "out_proj"),
    "XGLM": ({"d_model": 32, "attention_heads": HEADS, "num_layers": 2, "ffn_dim": 20}, PLAIN, "out_proj"),
    "Phi": ({}, PLAIN, "dense"),
    "Cohere": ({"num_key_value_heads": 2}, PLAIN, "o_proj"),
    "Gemma": (GROUPED, PLAIN, "o_proj"),
    "Gemma2": (GROUPED, PLAIN, "o_proj"),
    "Olmo2": ({"num_key_value_heads": 2}, PLAIN, "o_proj"),
    "Mixtral": ({"num_key_value_heads": 2, "num_local_experts": 2}, PLAIN, "o_proj"),
    "DeepseekV3": (LATENT, ("q_b_proj", "kv_b_proj", "kv_b_proj"), "o_proj"),
    "RoFormer": ({"is_decoder": True}, ("query", "key", "value"), "dense"),
}


def build(name, settings, implementation):
    config = getattr(transformers, f"{name}Config")(**{**SMALL, **settings})
    model = getattr(transformers, f"{name}ForCausalLM")._from_config(config, attn_implementation=implementation)
    randomize(model)
    return model.eval()


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("name", FAMILIES)
def test_the_projections_are_those_the_family_names(name, implementation):
    settings, parts, output = FAMILIES[name]
    try:
        model = build(name, settings, implementation)
    except ValueError:  # a family may have one implementation alone
        assert implementation == "sdpa"
        return
    for table in infer(model).architecture.stacks:
        one = table.attentions[0]
        found = [part.module.rpartition(".")[2] for part in (one.query, one.key, one.value)]
        assert (found, one.output.rpartition(".")[2]) == ([*parts], output)
        whole = [part.columns for part in (one.query, one.key, one.value)]
        if name == "DeepseekV3":  # each head's keys without rotation, then its values
            assert whole == [None, Columns(0, 6, HEADS, 11), Columns(6, 5, HEADS, 11)]
        else:
            assert whole == [None, None, None]
            assert {one.query.parts, one.key.parts, one.value.parts} == {1}


def test_codegen_has_queries_values_and_keys_in_four_blocks():
    model = build("CodeGen", OLD, "eager")
    one = infer(model).architecture.stacks[0].attentions[0]
    assert one.query.columns == Columns(0, SIZE, 4, 3 * SIZE)
    assert one.value.columns == Columns(SIZE, SIZE, 4, 3 * SIZE)
    assert one.key.columns == Columns(2 * SIZE, SIZE, 4, 3 * SIZE)
