"""official.load computes what the released code computes: logits, loss and every gradient, in float64."""

from __future__ import annotations

import warnings

import pytest
import torch

from interop import official_cases as cases
from interop import official_reference as reference
from unipetl import attachments
from unipetl.interop import official
from unipetl.interop.official_names import entries
from unipetl.interop.official_options import read_options

TOLERANCE = 1e-10


def compare(family: str, options: dict, model: torch.nn.Module) -> None:
    before = cases.base_state(model)
    trained = cases.trained_state(family, options, model)
    batch = cases.inputs(family)
    expected = cases.reference_model(family, options, before, trained)
    logits = cases.reference_logits(expected, batch)
    loss = reference.cross_entropy(logits, batch["labels"])
    loss.backward()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "attn_mode 'bitfit' with ffn_mode")
        attachment = official.load(model, options, {f"pretrained_model.{k}": v for k, v in trained.items()})
    try:
        output = model(**batch)
        assert (output.logits - logits).abs().max() < TOLERANCE
        assert (output.loss - loss).abs() < TOLERANCE
        output.loss.backward()
        compare_gradients(family, options, attachment, expected)
    finally:
        attachment.detach()
    after = cases.base_state(model)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def compare_gradients(family: str, options: dict, attachment, expected: reference.Model) -> None:
    official_by_ours = {one.ours: one for one in entries(attachment.plan, family, cases.LAYERS)}
    base = {"bart": "model.", "mbart": "model.", "roberta": "roberta."}[family]
    seen = set()
    for ours, parameter in attachment.tensors().items():
        assert parameter.requires_grad, ours
        if ours.startswith("model/"):
            name, rows = ours.removeprefix("model/"), None
        else:
            one = official_by_ours[ours]
            name, rows = (one.official if one.official.startswith("prompt_model.") else base + one.official), one.rows
        seen.add(name)
        gradient = expected.state[name].grad
        if gradient is None:  # an attention key's bias shifts every score of a row alike; torch may leave it out
            gradient = torch.zeros_like(expected.state[name])
        own = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        assert (own - gradient[:rows]).abs().max() < TOLERANCE, name
    reached = {name for name, tensor in expected.state.items() if tensor.grad is not None}
    assert reached <= seen


CASES = [
    (family, options)
    for family in cases.FAMILIES
    for options in [
        cases.NOTHING,
        *cases.attention_options(family),
        *cases.ffn_options(family)[::7],
        *cases.mixes(family),
    ]
]


@pytest.mark.parametrize(("family", "options"), CASES, ids=[f"{f}-{cases.title(o)}" for f, o in CASES])
def test_every_configuration_computes_the_released_function(family, options):
    compare(family, options, cases.tiny(family))


@pytest.mark.parametrize("family", cases.FAMILIES)
def test_the_reference_is_the_bare_model_when_nothing_is_inserted(family):
    model, batch = cases.tiny(family), cases.inputs(family)
    expected = cases.reference_model(family, {}, cases.base_state(model), {})
    logits = cases.reference_logits(expected, batch)
    with torch.no_grad():
        output = model(**batch)
    assert (output.logits - logits).abs().max() < 1e-12
    assert (output.loss - reference.cross_entropy(logits, batch["labels"])).abs() < 1e-12


@pytest.mark.parametrize("family", cases.FAMILIES)
def test_inserted_tensors_change_the_reference(family):
    model, batch = cases.tiny(family), cases.inputs(family)
    base = cases.base_state(model)
    bare = cases.reference_logits(cases.reference_model(family, {}, base, {}), batch)
    for options in cases.alone(family):
        trained = cases.trained_state(family, options, model)
        changed = cases.reference_logits(cases.reference_model(family, options, base, trained), batch)
        assert (changed - bare).abs().max() > 1e-3, options


@pytest.mark.parametrize("family", cases.FAMILIES)
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_prefixes_and_adapters_agree_with_either_attention_in_training_mode(family, implementation):
    model = cases.build(family)
    model.set_attn_implementation(implementation)
    model.train()
    compare(family, {**cases.PREFIXES[0], **cases.ffn_options(family)[7]}, model)
    compare(family, {**cases.PREFIXES[3], **cases.ffn_options(family)[5]}, model)


@pytest.mark.parametrize("family", cases.ENCODER_DECODER)
@pytest.mark.parametrize(
    "options",
    [
        cases.ADAPTERS[1],
        cases.PREFIXES[0],
        cases.PREFIXES[1],
        cases.PREFIXES[7],
        cases.GATED[2],
        cases.LORA,
        cases.PROMPT,
        {**cases.PREFIXES[0], "ffn_mode": "adapter", "ffn_option": "parallel", "ffn_bn": cases.FFN_BN},
    ],
    ids=cases.title,
)
def test_greedy_decoding_gives_the_released_tokens_with_and_without_cache(family, options):
    model = cases.tiny(family)
    batch = {key: value for key, value in cases.inputs(family).items() if key != "labels"}
    trained = cases.trained_state(family, options, model)
    m = cases.reference_model(family, options, cases.base_state(model), trained)
    expected = torch.full((3, 1), 2)
    with torch.no_grad():
        for _ in range(6):
            logits = reference.bart(m, batch["input_ids"], batch["attention_mask"], expected)[:, -1]
            expected = torch.cat([expected, logits.argmax(-1, keepdim=True)], dim=1)
    attachment = official.load(model, options, trained)
    try:
        for cached in (True, False):
            tokens = model.generate(
                **batch, max_new_tokens=6, min_new_tokens=6, do_sample=False, num_beams=1, use_cache=cached,
                eos_token_id=None,
            )  # fmt: skip
            assert torch.equal(tokens, expected), cached
    finally:
        attachment.detach()
    assert attachments(model) == ()


def test_defaults_are_the_released_ones():
    options = read_options({})
    assert (options.attn_bn, options.ffn_bn, options.mid_dim, options.lora_alpha) == (200, -1, 800, 32.0)
    assert (options.attn_option, options.ffn_adapter_layernorm_option) == ("concat", "in")
    assert (options.ffn_adapter_init_option, options.ffn_adapter_scalar, options.unfreeze_params) == (
        "bert",
        1.0,
        "ef_",
    )
