"""Inference on what trained models are like: outliers, heads that look at one token, many windows, mixed layers."""

from __future__ import annotations

import pytest
import torch
import transformers
from torch import nn

import unipetl
from unipetl.architectures import find_sites
from unipetl.inference import infer
from unipetl.inference.flow import equal
from unipetl.planning import plan
from unipetl.testing import randomize
from unipetl.testing.laws import Snapshot

HEADS, SIZE = 4, 6
SMALL = {
    "vocab_size": 50, "hidden_size": HEADS * SIZE, "num_hidden_layers": 2, "num_attention_heads": HEADS,
    "intermediate_size": 20, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
IDS = {"input_ids": torch.tensor([[5, 6, 7, 8, 9]])}


def build(name, kind="ForCausalLM", dtype=torch.float64, **settings):
    model = getattr(transformers, name + kind)(getattr(transformers, f"{name}Config")(**{**SMALL, **settings}))
    randomize(model)
    return model.to(dtype).eval()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_few_huge_numbers_do_not_make_everything_equal(dtype):
    h = torch.randn(7, 512, generator=torch.Generator().manual_seed(0))
    h[0, 3] = 3000.0
    h = h.to(dtype)
    change = torch.full_like(h, 0.2)
    assert not equal(h, h + change)
    assert equal(h + change, change + h)


def test_heads_that_look_at_one_token_have_columns_too():
    """The slope of a probability that is exactly 1 is 0."""
    settings = {"n_head": HEADS, "n_layer": 2}
    wanted = infer(build("Bloom", **settings))
    model = build("Bloom", **settings)
    with torch.no_grad():
        for block in model.transformer.h:
            block.self_attention.query_key_value.weight[-3 * SIZE :] *= 1e3  # the last head's
    assert infer(model) == wanted


def test_more_windows_than_tokens_in_one():
    settings = {"image_size": 32, "patch_size": 1, "window_size": 4, "embed_dim": 12, "depths": [1], "num_heads": [2]}
    model = transformers.Swinv2Model(transformers.Swinv2Config(**settings))
    randomize(model)
    attention = infer(model.eval()).architecture.stacks[0].attentions[0]
    parts = (attention.query, attention.key, attention.value)
    assert [part.module.rpartition(".")[2] for part in parts] == ["query", "key", "value"]


@pytest.mark.parametrize("plain", [0, 1])
def test_layers_with_and_without_experts_in_any_order(plain):
    model = build(
        "Qwen3Moe", dtype=torch.float32, head_dim=SIZE, num_key_value_heads=2, num_experts=4, num_experts_per_tok=2,
        moe_intermediate_size=8, mlp_only_layers=[plain],
    )  # fmt: skip
    found = infer(model)
    up = {one.layer for one in find_sites(model, found.base, found.architecture) if one.name.endswith("ffn.up")}
    assert up == {plain}
    whole = {
        one.layer: one.owner for one in find_sites(model, found.base, found.architecture) if one.name.endswith("ffn")
    }
    assert whole == {plain: f"model.layers.{plain}.mlp.down_proj", 1 - plain: f"model.layers.{1 - plain}.mlp"}


@pytest.mark.parametrize("name", ["Qwen2Moe", "Qwen3Moe", "GraniteMoe", "Glm4Moe", "Mixtral", "Olmoe"])
def test_the_ffn_of_a_layer_with_experts_is_not_its_attention(name):
    settings = {"num_key_value_heads": 2, "num_experts_per_tok": 2, "moe_intermediate_size": 8, "head_dim": SIZE}
    experts = {"num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "first_k_dense_replace": 0}
    model = build(name, dtype=torch.float32, **settings, **experts)
    found = infer(model)
    sites = [one for one in find_sites(model, found.base, found.architecture) if one.representation == "ffn"]
    assert [one.owner.rpartition(".")[2] for one in sites] == 2 * [sites[0].owner.rpartition(".")[2]]
    assert sites[0].owner.rpartition(".")[2] in ("mlp", "block_sparse_moe")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_the_gate_of_a_fused_ffn_is_told_in_any_dtype(dtype):
    for name, up in {"Phi3": 1, "Glm": 1}.items():
        settings = {"num_key_value_heads": 2, "head_dim": SIZE}
        ffn = infer(build(name, dtype=dtype, **settings)).architecture.stacks[0].feed_forward
        assert (ffn.up.part, ffn.gate.part, ffn.up.parts) == (up, 1 - up, 2)


def test_a_first_layer_without_a_norm_gets_no_later_one():
    """ModernBERT norms its embeddings, and so not again before the first attention."""
    settings = {"num_hidden_layers": 3, "cls_token_id": 1, "sep_token_id": 2}
    stack = infer(build("ModernBert", "Model", **settings)).architecture.stacks[0]
    assert (stack.norm_first, stack.attentions[0].norm, stack.feed_forward.norm) == (True, "attn_norm", "mlp_norm")


@pytest.mark.parametrize(("name", "wanted"), [("Esm", "encoder"), ("GPTJ", "decoder"), ("Bloom", "decoder")])
def test_a_stack_is_named_by_what_its_attention_sees(name, wanted):
    sizes = {"n_embd": 24, "n_head": 4, "n_layer": 2, "rotary_dim": 2} if name != "Esm" else {"mask_token_id": 3}
    (stack,) = infer(build(name, "Model", **sizes)).architecture.stacks
    assert (stack.stack, stack.causal) == (wanted, wanted == "decoder")


def test_an_attention_that_is_not_understood_is_no_ffn():
    """Of TimeSformer's two frames nothing can be learned about time, and its FFN may be narrow."""
    settings = {"image_size": 32, "patch_size": 16, "num_frames": 2, "hidden_dropout_prob": 0.0}
    model = build("Timesformer", "Model", dtype=torch.float32, **settings)
    ffn = infer(model).architecture.stacks[0].feed_forward
    assert (ffn.up.module, ffn.down.module) == ("intermediate.dense", "output.dense")


class Block(nn.Module):
    """An FFN with a fused gate; ``layout`` says where the gate is."""

    def __init__(self, layout):
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(12, 8)
        self.layout, self.last = layout, None

    def forward(self, x):
        self.last = self.up(self.norm(x))
        gate, up = self.layout(self.last)
        return x + self.down(nn.functional.silu(gate) * up)


class Toy(nn.Module):
    """Blocks that note down what they computed last."""

    def __init__(self, layout):
        super().__init__()
        self.blocks = nn.ModuleList(Block(layout) for _ in range(2))

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x


LAYOUTS = {
    "gate first": (lambda h: h.chunk(2, dim=-1), 1),
    "gate last": (lambda h: h.chunk(2, dim=-1)[::-1], 0),
    "in turn": (lambda h: (h[..., ::2], h[..., 1::2]), None),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_fused_gate_is_told_wherever_it_lies_or_refused(name):
    layout, up = LAYOUTS[name]
    model, inputs = Toy(layout), {"x": torch.randn(1, 7, 8)}
    if up is None:
        with pytest.raises(unipetl.errors.ArchitectureError, match="neither an attention nor an FFN"):
            infer(model, inputs)
    else:
        ffn = infer(model, inputs).architecture.stacks[0].feed_forward
        assert (ffn.up.part, ffn.gate.part) == (up, 1 - up)


def test_what_modules_note_down_during_the_watched_call_is_forgotten():
    model = Toy(LAYOUTS["gate first"][0])
    before = Snapshot.of(model)
    infer(model, {"x": torch.randn(1, 7, 8)})
    before.require_unchanged(model, "after watching")
    assert [block.last for block in model.blocks] == [None, None]


def test_a_config_that_no_call_can_be_made_from_is_explained():
    config = transformers.ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=32, patch_size=8
    )
    model = transformers.ViTModel(config)
    vars(config)["image_size"] = "large"  # transformers itself checks what is set in the usual way
    with pytest.raises(unipetl.errors.ArchitectureError, match=r"no arguments for a small call.*`architecture=`"):
        infer(model)


def test_a_change_that_reads_the_residual_stream_is_refused_where_that_is_not_known():
    model = build("Olmo2")
    with pytest.raises(unipetl.errors.PlanError, match="use reads='normed'"):
        plan("parallel_adapter(rank=2, at=both, variant=official)", model)
    unipetl.attach(model, "scaled_parallel_adapter(rank=2)")
    model(**IDS)
