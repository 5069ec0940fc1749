"""Fused projections: the columns that are found are those the model's own code takes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

import unipetl
from unipetl.architectures import Columns, Port, columns_of, find_sites
from unipetl.inference import infer, infer_from_shapes
from unipetl.inference.infer import _merge
from unipetl.testing import check_architecture, randomize
from unipetl.testing.coverage import build_type

HEADS, SIZE = 4, 6


def config(name, **settings):
    import transformers

    small = {
        "vocab_size": 50, "hidden_size": HEADS * SIZE, "num_hidden_layers": 2, "num_attention_heads": HEADS,
        "intermediate_size": 20, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    return getattr(transformers, f"{name}Config")(**{**small, **settings})


def model_of(made):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(made)
    randomize(model)
    return model.double().eval()


def runs(part, parts):
    """Head by head, ``part`` of ``parts``."""
    return Columns(part * SIZE, SIZE, HEADS, parts * SIZE)


LAYOUTS = {
    # every head's query, key and value side by side
    "GPTNeoX": ({}, [runs(0, 3), runs(1, 3), runs(2, 3)]),
    "Bloom": ({"n_head": HEADS, "n_layer": 2}, [runs(0, 3), runs(1, 3), runs(2, 3)]),
    # groups of two queries with their key and value
    "Falcon": (
        {"new_decoder_architecture": True, "num_kv_heads": 2},
        [Columns(0, 2 * SIZE, 2, 4 * SIZE), Columns(2 * SIZE, SIZE, 2, 4 * SIZE), Columns(3 * SIZE, SIZE, 2, 4 * SIZE)],
    ),
    # all queries, then fewer keys and values
    "Phi3": (
        {"num_key_value_heads": 2},
        [Columns(0, 4 * SIZE), Columns(4 * SIZE, 2 * SIZE), Columns(6 * SIZE, 2 * SIZE)],
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_columns_of_a_fused_projection(name):
    settings, columns = LAYOUTS[name]
    found = infer(model_of(config(name, **settings)))
    attention = found.architecture.stacks[0].attentions[0]
    assert attention.query.module == attention.key.module == attention.value.module
    whole = columns[0].features + columns[1].features + columns[2].features
    assert [columns_of(part, whole) for part in (attention.query, attention.key, attention.value)] == columns


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_change_to_the_queries_moves_nothing_else(name):
    """An independent oracle: add to the query's columns of the bias-free result by hand, with a hook."""
    settings, columns = LAYOUTS[name]
    model = model_of(config(name, **settings))
    ids = torch.tensor([[7, 8, 9, 10]])
    attachment = unipetl.attach(model, "lora(rank=2, at='attention.query')")
    with torch.no_grad():
        for tensor in attachment.tensors().values():
            tensor.normal_(0, 0.5, generator=torch.Generator().manual_seed(0))
        changed = model(ids).logits
        weights = {name.split("/")[0]: {} for name in attachment.tensors()}
        for tensor_name, tensor in attachment.tensors().items():
            weights[tensor_name.split("/")[0]][tensor_name.rsplit("/", 1)[-1]] = tensor.clone()
        sites = {one.site.name: one.site.value.module for one in attachment.plan.placements}
        scale = attachment.method.modifications[0].composition.scale
        unipetl.detach(model)
        places = columns[0].places()
        for site, parts in weights.items():
            model.get_submodule(sites[site]).register_forward_hook(
                lambda module, args, output, parts=parts: output.index_add(
                    -1, places, scale * (args[0] @ parts["down"].T @ parts["up"].T)
                )
            )
        assert torch.allclose(model(ids).logits, changed, atol=1e-10)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_model_without_weights_gets_the_same_table(name):
    settings, _ = LAYOUTS[name]
    wide = {"hidden_size": HEADS * 32, "intermediate_size": 96} if name != "Bloom" else {"hidden_size": HEADS * 32}
    made = config(name, **{**settings, **wide})
    live = infer(model_of(made))
    with torch.device("meta"):
        from transformers import AutoModelForCausalLM

        bare = AutoModelForCausalLM.from_config(made)
    without = infer_from_shapes(bare)
    assert find_sites(bare, without.base, without.architecture) == find_sites(bare, live.base, live.architecture)


def test_columns_take_and_replace_what_they_say():
    h = torch.arange(24.0).expand(2, 24)
    for columns in (Columns(4, 8), Columns(2, 2, 4, 6), Columns(0, 3, 2, 9)):
        places = columns.places().tolist()
        assert columns.features == len(places)
        assert columns.of(h)[0].tolist() == [float(place) for place in places]
        replaced = columns.replaced(h, torch.zeros(2, len(places)))
        assert [i for i in range(24) if replaced[0, i] == 0 and i] == [i for i in places if i]
        assert torch.equal(replaced, columns.replaced(h, columns.of(h) * 0))


def stages():
    """A model whose stages have heads in different numbers, under the same names."""
    import transformers

    made = transformers.CvtConfig(embed_dim=[16, 32, 64], num_heads=[1, 2, 4], depth=[1, 2, 3], image_size=32)
    return model_like(transformers.CvtModel(made))


def layers_of_two_kinds():
    """A model that says in its config that its second layer has larger heads."""
    import transformers

    made = transformers.Gemma4TextConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=8,
        intermediate_size=20, layer_types=["sliding_attention", "full_attention"], hidden_size_per_layer_input=4,
        vocab_size_per_layer_input=50, per_layer_config={1: {"head_dim": 16}},
    )  # fmt: skip
    return model_like(transformers.Gemma4ForCausalLM(made))


def model_like(model):
    randomize(model)
    return model.double().eval()


def test_layers_may_have_heads_of_their_own():
    cvt = infer(stages())
    assert [(one.layers, one.heads.query_heads) for one in cvt.architecture.stacks[0].attentions] == [
        (frozenset({0}), 1),
        (frozenset({1, 2}), 2),
        (frozenset({3, 4, 5}), 4),
    ]
    gemma = unipetl.plan("prefix_tuning(length=2, mlp=none)", layers_of_two_kinds())
    assert [one.site.shape.key_dim for one in gemma.placements] == [8, 16]


@pytest.mark.parametrize(
    ("make", "method"),
    [
        (stages, "lora(rank=2)"),
        (layers_of_two_kinds, "lora(rank=2)"),
        (layers_of_two_kinds, "multi_head_parallel_adapter(rank=4)"),
    ],
)
def test_layers_with_heads_of_their_own_obey_the_laws(make, method):
    model = make()
    assert check_architecture(model, methods={"the one": method}) == {"the one": "ok"}


def test_an_embedding_outside_the_base_model_is_no_place():
    found = infer(build_type("dinov3_vit"))
    assert found.base == "model"
    assert [one.embedding for one in found.architecture.stacks] == [""]


def test_an_attention_that_turns_its_result_changes_it_afterwards():
    model = build_type("mlcd_vision_model")
    (attention,) = infer(model).architecture.stacks[0].attentions
    assert attention.result == Port("self_attn", "output")
    assert check_architecture(model, methods={"one": "parallel_adapter(rank=2, at=attention)"}) == {"one": "ok"}


def test_a_model_without_weights_whose_layers_differ_is_refused():
    model = stages()
    with torch.device("meta"):
        bare = type(model)(model.config)
    with pytest.raises(unipetl.errors.ArchitectureError, match="laid out differently"):
        infer_from_shapes(bare)


def test_projections_that_move_from_layer_to_layer_are_refused():
    one = infer(stages()).architecture.stacks[0].attentions[0]
    moved = replace(one, key=replace(one.key, module="elsewhere"))
    with pytest.raises(unipetl.errors.ArchitectureError, match="from different modules in different layers"):
        _merge("blocks", [(0, [one]), (1, [moved])])


def test_the_linear_half_of_a_fused_gate_is_told_from_the_gate():
    model = model_of(config("Phi3", num_key_value_heads=2))
    ffn = infer(model).architecture.stacks[0].feed_forward
    assert (ffn.gate.part, ffn.up.part, ffn.up.parts) == (0, 1, 2)
    block = model.model.layers[0].mlp
    x = torch.randn(3, HEADS * SIZE, dtype=torch.float64)
    seen = []
    block.down_proj.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    block(x)
    with torch.no_grad():
        block.gate_up_proj.weight[20:] *= 2  # rows of the second half
    block(x)
    assert torch.allclose(seen[1], 2 * seen[0])


def test_a_model_of_no_layers_is_refused():
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Linear(2, 2)

        def forward(self, input_ids):
            return self.one(input_ids)

    with pytest.raises(unipetl.errors.ArchitectureError, match="no list of like layers"):
        infer(Plain())
