"""Families without a table: interleaved and fused projections, gates in one module, norms after sub-layers."""

from __future__ import annotations

import pytest
import torch
import transformers

import unipetl
from unipetl.errors import FoldError
from unipetl.folding import fold, unfold, write_checkpoint
from unipetl.testing import randomize
from unipetl.testing.compare import close, outputs, same, scatter
from unipetl.testing.coverage import build_type

SIZES = {
    "vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 40,
    "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
GPT = {"vocab_size": 60, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
FAMILIES = {
    "GPTNeoXForCausalLM": (SIZES, {"intermediate_size": 43}),
    "GPTJForCausalLM": ({**GPT, "rotary_dim": 4}, {"n_inner": 131}),
    "Phi3ForCausalLM": ({**SIZES, "num_key_value_heads": 2}, {"intermediate_size": 43}),
    "ModernBertForSequenceClassification": (
        {**SIZES, "cls_token_id": 1, "sep_token_id": 2, "reference_compile": False}, {"intermediate_size": 43},
    ),
    "DebertaV2ForSequenceClassification": (SIZES, {"intermediate_size": 43}),
}  # fmt: skip
METHOD = "lora(rank=2, at=all) + ia3 + parallel_adapter(rank=3, activation=model)"


def attached(name, settings, method=METHOD, dtype=torch.float64):
    cls = getattr(transformers, name)
    model = cls(cls.config_class(**settings))
    randomize(model)
    model = model.to(dtype).eval()
    scatter(unipetl.attach(model, method, train_head=False), size=0.1)
    return model, {"input_ids": torch.randint(5, 60, (2, 7))}


@pytest.mark.parametrize("name", FAMILIES)
def test_everything_folds_into_a_plain_model(name):
    settings, wider = FAMILIES[name]
    model, call = attached(name, settings)
    wanted = outputs(model, call)
    report = fold(model)
    assert report.plain, str(report)
    assert report.settings == wider
    close(outputs(model, call), wanted, "folded", 1e-5)
    unfold(model)
    same(outputs(model, call), wanted, "unfolded")


@pytest.mark.parametrize("name", ["GPTNeoXForCausalLM", "Phi3ForCausalLM", "ModernBertForSequenceClassification"])
def test_their_checkpoints_read_back(name, tmp_path):
    model, call = attached(name, FAMILIES[name][0], dtype=torch.float32)
    assert write_checkpoint(model, tmp_path / "plain", [call]).difference < 1e-3


def test_some_layers_of_a_fused_ffn(tmp_path):
    method = unipetl.Method.from_plain(
        {"modifications": [{"representation": {"name": "ffn", "layers": [-1]}, "insertion": "parallel",
                            "form": {"bottleneck": {"rank": 5, "activation": "model"}}}]}
    )  # fmt: skip
    model, call = attached("Phi3ForCausalLM", FAMILIES["Phi3ForCausalLM"][0], method)
    wanted = outputs(model, call)
    assert fold(model).settings == {"intermediate_size": 45}
    assert {layer.mlp.gate_up_proj.out_features for layer in model.model.layers} == {90}
    close(outputs(model, call), wanted, "folded", 1e-5)


def test_two_activations_in_a_fused_ffn():
    model, call = attached(
        "ModernBertForSequenceClassification", FAMILIES["ModernBertForSequenceClassification"][0],
        "parallel_adapter(rank=3, activation=tanh)",
    )  # fmt: skip
    wanted = outputs(model, call)
    assert "keeps its activation" in fold(model).not_plain[0]
    close(outputs(model, call), wanted, "folded")


def test_a_norm_after_the_ffn_is_in_the_way():
    settings = {**SIZES, "num_key_value_heads": 2, "head_dim": 8}
    model, _ = attached("Gemma2ForCausalLM", settings, "parallel_adapter(rank=3, activation=model)")
    with pytest.raises(FoldError, match="stands Gemma2RMSNorm"):
        fold(model)


def test_an_ffn_with_a_norm_among_its_units_is_not_widened():
    model = build_type("kosmos-2.5")
    unipetl.attach(model, "parallel_adapter(rank=3)")
    with pytest.raises(FoldError, match=r"ffn_layernorm' stands between the FFN's units"):
        fold(model)


def test_a_config_without_a_width_is_no_plain_model():
    settings = {"vocab_size": 60, "hidden_size": 32, "n_layer": 2, "n_head": 4}
    model, call = attached("BloomForCausalLM", settings, "parallel_adapter(rank=3, activation=model)")
    wanted = outputs(model, call)
    assert "BloomConfig has no value" in fold(model).not_plain[0]
    close(outputs(model, call), wanted, "folded", 1e-7)
