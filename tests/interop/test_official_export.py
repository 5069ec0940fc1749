"""official.official_state_dict gives back what official.load read, and refuses what has no options."""

from __future__ import annotations

import warnings

import pytest
import torch

import unipetl
from interop import official_cases as cases
from unipetl.errors import AttachError, InteropError
from unipetl.interop import official
from unipetl.interop.official_names import WRAPPER

CASES = [(family, options) for family in cases.FAMILIES for options in cases.mixes(family)]


@pytest.mark.parametrize(("family", "options"), CASES, ids=[f"{f}-{cases.title(o)}" for f, o in CASES])
def test_what_was_loaded_comes_back_under_the_same_names(family, options):
    model = cases.tiny(family)
    trained = cases.trained_state(family, options, model)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "attn_mode 'bitfit' with ffn_mode")
        attachment = official.load(model, options, trained)
    try:
        method = attachment.method
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found, state = official.official_state_dict(model)
    finally:
        attachment.detach()
    own = {name.removeprefix(WRAPPER): value for name, value in state.items()}
    assert all(torch.equal(trained[name], value) for name, value in own.items())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "attn_mode 'bitfit' with ffn_mode")
        again = official.load(model, found, state)
    try:
        assert again.method == method
        assert again.plan.parameters == sum(value.numel() for value in state.values())
    finally:
        again.detach()


def test_rows_for_layers_the_decoder_does_not_have_are_zero():
    model = cases.build("bart", decoder_layers=1)
    options = cases.PREFIXES[0]
    trained = cases.draw(cases.inserted_shapes("bart", options, decoder_layers=1))
    official.load(model, options, trained)
    _, state = official.official_state_dict(model)
    rows = state["prompt_model.control_trans2.2.weight"]
    assert torch.equal(rows[: 2 * cases.D], trained["prompt_model.control_trans2.2.weight"][: 2 * cases.D])
    assert rows.shape == (4 * cases.D, cases.MID)
    assert not rows[2 * cases.D :].any()


def test_dropout_that_is_not_the_models_is_an_option():
    model = cases.build("mbart")
    options = {**cases.ffn_options("mbart")[0], "dropout": 0.3}
    attachment = official.load(model, options, cases.trained_state("mbart", options, model))
    found, _ = official.official_state_dict(model, attachment.name)
    assert found["dropout"] == 0.3


def test_a_trained_head_is_exported_and_comes_back():
    model = cases.build("roberta")
    unipetl.attach(model, unipetl.catalogue.lora(rank=2))
    with torch.no_grad():
        model.classifier.out_proj.bias += 1
        expected = model(**cases.inputs("roberta")).logits
    options, state = official.official_state_dict(model)
    unipetl.detach(model)
    official.load(model, options, state)
    with torch.no_grad():
        assert torch.equal(model(**cases.inputs("roberta")).logits, expected)


@pytest.mark.parametrize(
    ("family", "method", "message"),
    [
        ("bart", "houlsby(rank=2)", "no options for this on bart: {'representation': 'attention'"),
        ("bart", "pfeiffer(rank=2)", "no options for this on bart: .*'block'"),
        ("mbart", "parallel_adapter(rank=2)", "no options for this on mbart: .*'ffn'"),
        ("bart", "lora(rank=2, at='all')", "no options for this"),
        ("bart", "lora(rank=2, at='attention.query')", "leave this away on bart: .*attention.value"),
        ("bart", "ia3()", "no options for this: .*rescale"),
        ("roberta", "prompt_tuning(length=2)", "no options for this on roberta: .*'input'"),
        ("bart", "prefix_tuning(length=2, mlp=3) + prompt_tuning(length=2)", "one 'attn_mode'"),
        ("bart", unipetl.Method(train=("norm",)), "no options that train these beside: norm"),
    ],
)
def test_methods_the_released_code_cannot_express_are_refused(family, method, message):
    model = cases.tiny(family)
    attachment = unipetl.attach(model, method)
    try:
        with pytest.raises(InteropError, match=message):
            official.official_state_dict(model)
    finally:
        attachment.detach()


def test_a_model_without_attachment_has_nothing_to_export():
    with pytest.raises(AttachError, match="which attachment"):
        official.official_state_dict(cases.tiny("bart"))
