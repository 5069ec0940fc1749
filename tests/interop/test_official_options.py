"""The option values: what they mean as a method, and every combination that the released code cannot run."""

from __future__ import annotations

import pytest
import torch

import unipetl
from interop import official_cases as cases
from unipetl.composition import Add, Gate
from unipetl.errors import InteropError
from unipetl.forms import Bottleneck, HeadAttention, LowRank, Mlp
from unipetl.insertion import Parallel, Sequential
from unipetl.interop import official
from unipetl.interop.official_options import method_of, read_options

FFN = {"ffn_mode": "adapter", "ffn_bn": 5}
ADAPTER, PREFIX = {"attn_mode": "adapter", "attn_bn": 3}, {"attn_mode": "prefix", "attn_bn": 3, "mid_dim": 7}


def method(family: str, **options):
    return method_of(read_options(options), family, 0.1, 0.2)


REFUSED = [
    ("bart", {"attn_mod": "lora"}, "Did you mean 'attn_mode'?"),
    ("bart", {"attn_mode": "lisa"}, "attn_mode"),
    ("bart", {"attn_bn": "many", "attn_mode": "lora"}, "attn_bn"),
    ("bart", {"ffn_adapter_scalar": "learned", **FFN, "ffn_option": "parallel"}, "learnable_scalar"),
    ("bart", {"ffn_adapter_scalar": "nan", **FFN, "ffn_option": "parallel"}, "scale"),
    ("bart", {"ffn_adapter_scalar": "0", **FFN, "ffn_option": "parallel"}, "scale"),
    ("bart", {"attn_mode": "lora", "attn_bn": 3, "lora_alpha": 0}, "scale"),
    ("bart", {"attn_mode": "lora", "attn_bn": 0}, "attn_bn: attn_mode 'lora' needs a size above 0, found 0"),
    ("bart", {"ffn_mode": "lora"}, "ffn_bn: ffn_mode 'lora' needs a size above 0, found -1 (the released default"),
    ("mbart", FFN, "ffn_option 'none' with ffn_mode 'adapter'"),
    ("bart", {**FFN, "ffn_option": "pfeiffer"}, "ffn_option 'pfeiffer' on BART: the released code raises ValueError"),
    ("bart", {**PREFIX, "attn_option": "parallel"}, "attn_option 'parallel' with attn_mode 'prefix': the released"),
    ("mbart", {**PREFIX, "attn_option": "none"}, "ValueError"),
    ("roberta", {**PREFIX, "attn_option": "cross_attn", "attn_composition": "gate_add"}, "RuntimeError for any input"),
    ("bart", {**ADAPTER, "attn_option": "parallel", "attn_composition": "gate_add"}, "UnboundLocalError"),
    ("bart", {"attn_mode": "bitfit", "attn_composition": "gate_add"}, "UnboundLocalError"),
    ("bart", {**PREFIX, "attn_composition": "gate_add"}, "gate_add' with attn_option 'concat'"),
    ("bart", {**PREFIX, "attn_option": "cross_attn_relu", "attn_composition": "gate_add"}, "'cross_attn_relu'"),
    ("bart", {**PREFIX, "unfreeze_params": "ef_,layer_norm"}, "unfreeze_params 'ef_,layer_norm'"),
    ("bart", {**ADAPTER, "attn_option": "parallel", "unfreeze_params": "none"}, "unfreeze_params 'none'"),
    ("roberta", {**PREFIX, "attn_option": "cross_attn", "layer_norm_after": True}, "layer_norm_after"),
    ("bart", {**PREFIX, "prefix_dropout": 1.5}, "prefix_dropout"),
]


@pytest.mark.parametrize(("family", "options", "message"), REFUSED, ids=[str(i) for i in range(len(REFUSED))])
def test_what_raised_in_the_released_code_is_refused_with_the_reason(family, options, message):
    model = cases.tiny(family)
    with pytest.raises(InteropError) as error:
        official.load(model, options, {})
    assert message in str(error.value)
    assert unipetl.attachments(model) == ()


def test_options_must_be_a_mapping():
    with pytest.raises(InteropError, match="expected a mapping"):
        official.load(cases.tiny("bart"), "mam", {})


def test_text_numbers_and_none_are_read_alike():
    text = {"attn_mode": "lora", "attn_bn": "3", "lora_alpha": "12", "lora_dropout": "0.1", "ffn_mode": None}
    number = {"attn_mode": "lora", "attn_bn": 3, "lora_alpha": 12, "lora_dropout": 0.1}
    assert read_options(text) == read_options(number)


def test_attention_adapters_ignore_the_ffn_adapters_options():
    options = {"ffn_adapter_layernorm_option": "none", "ffn_adapter_init_option": "lora", "ffn_adapter_scalar": "4"}
    (one,) = method("bart", **ADAPTER, attn_option="sequential", **options).modifications
    assert one.form == Bottleneck(rank=3, layer_norm="in", dropout=0.2, init="bert")
    assert (one.representation.name, one.insertion, one.composition) == ("attention", Sequential(), Add())


def test_ffn_adapters_take_the_models_dropout_or_the_options():
    form = method("bart", **FFN, ffn_option="parallel").modifications[0].form
    assert form == Bottleneck(rank=5, layer_norm="in", dropout=0.1, init="bert")
    form = method("mbart", **FFN, ffn_option="parallel", dropout="0.3").modifications[0].form
    assert isinstance(form, Bottleneck)
    assert form.dropout == 0.3


@pytest.mark.parametrize(("family", "names"), [("bart", ("dropout", "attention_dropout")),
                         ("roberta", ("hidden_dropout_prob", "attention_probs_dropout_prob"))])  # fmt: skip
def test_dropouts_come_from_the_models_config(family, names):
    model = cases.build(family, **dict(zip(names, (0.3, 0.4), strict=True)))
    options = {**ADAPTER, "attn_option": "parallel", **FFN, "ffn_option": "parallel"}
    attachment = official.load(model, options, cases.trained_state(family, options, model))
    found = {one.representation.name: one.form.dropout for one in attachment.method.modifications}
    assert found == {"attention.heads": 0.4, "ffn": 0.3}


def test_lora_scales_by_alpha_over_each_rank():
    changes = method("bart", attn_mode="lora", attn_bn=4, ffn_mode="lora", ffn_bn=8, lora_alpha=16).modifications
    found = {one.representation.name: one.composition.scale for one in changes}
    assert found == {"attention.query": 4.0, "attention.value": 4.0, "ffn.up": 2.0, "ffn.down": 2.0}
    assert all(isinstance(one.form, LowRank) for one in changes)


def test_prefix_dropout_acts_with_the_mlp_only():
    (one,) = method("bart", **PREFIX, prefix_dropout=0.5).modifications
    assert one.form == HeadAttention(length=3, reparametrization=Mlp(width=7), dropout=0.5)
    assert (one.composition, one.insertion) == (Gate(), Parallel())
    (one,) = method("bart", attn_mode="prefix_nomlp", attn_bn=3, prefix_dropout=0.5).modifications
    assert one.form == HeadAttention(length=3)


def test_mam_of_the_scripts_is_the_catalogues():
    options = {
        "attn_mode": "prefix", "attn_option": "concat", "attn_bn": 30, "mid_dim": 800, "ffn_mode": "adapter",
        "ffn_option": "parallel", "ffn_bn": 512, "ffn_adapter_layernorm_option": "none",
        "ffn_adapter_init_option": "lora", "ffn_adapter_scalar": "4",
    }  # fmt: skip
    for family in cases.FAMILIES:
        assert method(family, **options) == unipetl.catalogue.mam(dropout=0.1, variant="official")


def test_multi_head_parallel_adapters_differ_between_families():
    relu = {"attn_mode": "prefix_nomlp", "attn_option": "cross_attn_relu", "attn_bn": 30}
    official_form = unipetl.catalogue.multi_head_parallel_adapter(rank=30, variant="official")
    assert method("bart", **relu) == official_form
    assert method("mbart", **relu) == method("roberta", **relu)
    assert method("mbart", **relu) == unipetl.catalogue.multi_head_parallel_adapter(rank=30)


def test_nothing_wrapped_is_full_fine_tuning():
    assert method("bart") == unipetl.catalogue.full()


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("roberta", {"attn_mode": "prompt_tuning", "attn_bn": 3}),
        ("roberta", {"attn_mode": "prefix", "attn_option": "parallel", "attn_bn": 3, "mid_dim": 7}),
        ("bart", {"attn_mode": "adapter", "attn_option": "none", "attn_bn": 3}),
        ("mbart", {"attn_mode": "adapter", "attn_bn": 3}),
    ],
)
@pytest.mark.parametrize("ffn", [{}, {**FFN, "ffn_option": "sequential"}], ids=["alone", "with ffn"])
def test_modes_that_silently_do_nothing_do_nothing_here_with_a_warning(family, options, ffn):
    model = cases.tiny(family)
    options = {**options, **ffn}
    trained = cases.trained_state(family, options, model)
    without = cases.reference_model(family, ffn, cases.base_state(model), trained)
    expected = cases.reference_logits(without, cases.inputs(family))
    with pytest.warns(UserWarning, match=f"does nothing on {family}") as warned:
        attachment = official.load(model, options, trained)
    assert len(warned) == 1
    with torch.no_grad():
        assert (model(**cases.inputs(family)).logits - expected).abs().max() < 1e-10
    attachment.detach()


def test_bitfit_beside_an_adapter_warns_that_more_is_trained_here():
    options = {"attn_mode": "bitfit", **FFN, "ffn_option": "parallel"}
    model = cases.tiny("bart")
    with pytest.warns(UserWarning, match="never trains the inserted matrices"):
        attachment = official.load(model, options, cases.trained_state("bart", options, model))
    attachment.detach()
