"""Plans: from live models, meta models and bare configs; what is refused, and how it is said."""

from __future__ import annotations

import copy

import pytest
import torch

import unipetl
from unipetl.architectures.llama import LLAMA
from unipetl.errors import ArchitectureError, PlanError
from unipetl.testing.models import build

MAM = "mam(length=2, rank=3, mlp=4)"


def test_a_plan_touches_nothing():
    model = build("bart")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    modules, config = list(model.modules()), copy.deepcopy(model.config.to_dict())
    unipetl.plan(MAM, model)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert list(model.modules()) == modules
    assert model.config.to_dict() == config
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in modules)


def test_a_live_model_a_meta_model_and_a_config_give_the_same_plan():
    model = build("bart")
    config = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__]
    with torch.device("meta"):
        meta = type(model)(config)
    plans = [unipetl.plan(MAM, one) for one in (model, meta, config)]
    assert len({str(one) for one in plans}) == 1
    assert plans[0].to_dict() == plans[1].to_dict() == plans[2].to_dict()


def test_the_count_is_that_of_the_attached_tensors():
    for family in ("bart", "roberta", "t5", "llama", "gpt2"):
        model = build(family)
        plan = unipetl.plan(MAM, model)
        unipetl.attach(model, MAM)
        assert plan.parameters == sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_a_plan_on_an_attached_model_counts_the_model_alone():
    model = build("bart")
    before = unipetl.plan("lora(rank=2)", model)
    unipetl.attach(model, MAM)
    assert unipetl.plan("lora(rank=2)", model).base_parameters == before.base_parameters


def test_a_plan_prints_every_place():
    text = str(unipetl.plan(MAM, build("bart")))
    for words in ("encoder.*.self_attention.heads", "decoder.*.cross_attention.heads", "decoder.*.ffn", "softmax"):
        assert words in text


@pytest.mark.parametrize(
    ("modification", "words"),
    [
        (
            {"representation": "ffn", "form": {"head_attention": {"length": 2}}},
            "needs representation 'attention.heads'",
        ),
        ({"representation": "ffn", "form": {"prompt": {"length": 2}}, "composition": "gate"}, "representation 'input'"),
        ({"representation": "input", "form": {"low_rank": {"rank": 2}}}, "only 'prompt' does"),
        ({"representation": "ffn", "form": {"bottleneck": {"rank": 2}}, "composition": "gate"}, "has no such scores"),
        ({"representation": "input", "form": {"prompt": {"length": 2}}}, "use 'gate'"),
        (
            {"representation": "attention.heads", "form": {"head_attention": {"length": 2}}, "insertion": "sequential"},
            "use insertion 'parallel'",
        ),
        (
            {
                "representation": "attention.heads",
                "form": {"head_attention": {"length": 2, "activation": "relu"}},
                "composition": "gate",
            },
            "activation 'softmax'",
        ),
        ({"representation": "ffn", "form": "rescale", "insertion": "sequential"}, "'multiply' goes with"),
        ({"representation": "ffn", "form": {"low_rank": {"rank": 2}}, "composition": "multiply"}, "'rescale'"),
        ({"representation": "ffn", "form": "rescale", "composition": "multiply"}, "use 'sequential'"),
        (
            {
                "representation": "ffn",
                "form": {"low_rank": {"rank": 2}},
                "insertion": {"sequential": {"reads": "normed"}},
            },
            "no norm follows",
        ),
        ({"representation": "ffn.residual", "form": {"low_rank": {"rank": 2}}}, "use representation 'ffn'"),
        ({"representation": {"name": "ffn", "kind": "self"}, "form": {"low_rank": {"rank": 2}}}, "kind 'self'"),
        ({"representation": "ffn.gate", "form": {"low_rank": {"rank": 2}}}, "this model has none"),
        ({"representation": {"name": "ffn", "layers": [7]}, "form": {"low_rank": {"rank": 2}}}, "no layer 7"),
        (
            {
                "representation": {"name": "attention", "stack": "encoder", "kind": "cross"},
                "form": {"low_rank": {"rank": 2}},
            },
            "nothing in this model fits",
        ),
        (
            {
                "representation": {"name": "input", "stack": "decoder"},
                "form": {"prompt": {"length": 2}},
                "composition": "gate",
            },
            "in front of the encoder's",
        ),
    ],
)
def test_nonsense_is_refused_with_what_would_work(modification, words):
    method = unipetl.Method(modifications=[modification])
    with pytest.raises(PlanError, match=words):
        unipetl.plan(method, build("bart"))


def test_a_pre_norm_model_has_no_norm_after_the_ffn():
    with pytest.raises(PlanError, match="pre-norm"):
        unipetl.plan("pfeiffer(variant=official)", build("mbart"))


def test_the_same_modification_twice_is_refused():
    with pytest.raises(PlanError, match="stands there twice"):
        unipetl.plan("lora(rank=2) + lora(rank=2)", build("bart"))


def test_optional_places_are_left_out_where_there_are_none():
    gated = unipetl.plan("lora(rank=2, at=all)", build("llama"))
    plain = unipetl.plan("lora(rank=2, at=all)", build("bart"))
    assert any(one.site.representation == "ffn.gate" for one in gated.placements)
    assert not any(one.site.representation == "ffn.gate" for one in plain.placements)


def test_narrowing_selects_stacks_kinds_and_layers():
    def sites(**narrowed):
        one = {"representation": {"name": "attention", **narrowed}, "form": {"low_rank": {"rank": 1}}}
        plan = unipetl.plan(unipetl.Method(modifications=[one]), build("bart", encoder_layers=2, decoder_layers=3))
        return [placement.site.name for placement in plan.placements]

    assert sites(stack="encoder") == ["encoder.0.self_attention", "encoder.1.self_attention"]
    assert sites(kind="cross", layers=[-1]) == ["decoder.2.cross_attention"]
    assert sites(layers=[1], kind="self") == ["encoder.1.self_attention", "decoder.1.self_attention"]


@pytest.mark.parametrize("group", ["bias", "norm", "embeddings", "head"])
def test_an_empty_group_of_trained_parameters_is_refused(group):
    model = build("llama")
    method = unipetl.Method(train=(group,))
    if group == "bias":
        with pytest.raises(PlanError, match="has no such parameters"):
            unipetl.plan(method, model)
    else:
        assert unipetl.plan(method, model).parameters > 0


def test_a_fixed_table_of_positions_is_not_fine_tuned():
    model = build("marian")
    names = {name for name, _ in unipetl.plan("full", model).trained}
    assert names
    assert not any("embed_positions" in name for name in names)
    for parameter in model.parameters():
        parameter.requires_grad_(False)  # a user who froze everything first still gets full fine-tuning
    assert len(unipetl.plan("full", model).trained) >= len(names)


def test_a_stranger_is_refused_and_an_unknown_family_is_looked_at_or_given_a_table():
    class Stranger(torch.nn.Module):
        pass

    with pytest.raises(ArchitectureError, match="architecture="):
        unipetl.plan("lora", Stranger())
    model = build("llama")
    known = unipetl.plan("lora", model)
    model.config.model_type = "lama"
    assert unipetl.plan("lora", model).placements == known.placements
    assert unipetl.plan("lora", model, architecture=LLAMA).placements == known.placements
    with pytest.raises(ArchitectureError, match="no stack of blocks"):
        unipetl.plan("lora", build("bert"), architecture=LLAMA)


def test_a_head_is_trained_only_where_it_is_a_task_s():
    assert unipetl.plan("lora(rank=2)", build("roberta")).head
    assert not unipetl.plan("lora(rank=2)", build("bart")).head
    with_head = unipetl.plan("lora(rank=2)", build("roberta"))
    without = unipetl.plan("lora(rank=2)", build("roberta"), train_head=False)
    assert with_head.parameters > without.parameters == without.added_parameters
    assert with_head.paper_parameters == without.paper_parameters
