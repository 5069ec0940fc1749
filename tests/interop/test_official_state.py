"""official.load and the state dict: which tensors it takes, leaves aside, and refuses by name."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from transformers.models.bart.modeling_bart import BartForCausalLM, BartForSequenceClassification, BartModel
from transformers.models.roberta.modeling_roberta import RobertaForMaskedLM, RobertaModel

import unipetl
from interop import official_cases as cases
from interop import official_reference as reference
from unipetl.errors import AttachError, InteropError
from unipetl.interop import official

MAM = {**cases.PREFIXES[0], "ffn_mode": "adapter", "ffn_option": "parallel", "ffn_bn": cases.FFN_BN}


def loaded_logits(family: str, options: dict, state: dict, model=None) -> torch.Tensor:
    model = model or cases.tiny(family)
    attachment = official.load(model, options, state)
    try:
        with torch.no_grad():
            return model(**cases.inputs(family)).logits
    finally:
        attachment.detach()


def snapshot(model) -> tuple:
    return (
        {name: tensor.clone() for name, tensor in model.state_dict().items()},
        {name: parameter.requires_grad for name, parameter in model.named_parameters()},
        [name for name, _ in model.named_modules()],
        sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()),
    )


def assert_refuses(model, options: dict, state: dict, *messages: str) -> None:
    before = snapshot(model)
    with pytest.raises(InteropError) as error:
        official.load(model, options, state)
    for message in messages:
        assert message in str(error.value)
    after = snapshot(model)
    assert before[1:] == after[1:]
    assert before[0].keys() == after[0].keys()
    assert all(torch.equal(before[0][name], after[0][name]) for name in before[0])
    assert unipetl.attachments(model) == ()


@pytest.mark.parametrize("family", cases.FAMILIES)
def test_names_are_read_with_and_without_their_wrappers_and_base_weights_are_left_aside(family):
    model = cases.tiny(family)
    trained = cases.trained_state(family, MAM, model)
    expected = loaded_logits(family, MAM, trained)
    whole = {**cases.base_state(model), **trained}
    wrapped = {(k if k.startswith("prompt_model.") else f"pretrained_model.{k}"): v for k, v in whole.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(loaded_logits(family, MAM, whole), expected)
        assert torch.equal(loaded_logits(family, MAM, wrapped), expected)


@pytest.mark.parametrize(("family", "model_class"), [("bart", BartModel), ("roberta", RobertaModel)])
def test_a_model_without_head_computes_the_same_hidden_states(family, model_class):
    extra = {"add_pooling_layer": False} if family == "roberta" else {}
    model = cases.randomise(model_class(cases.config(family), **extra))
    base = {"bart": "model.", "roberta": "roberta."}[family]
    own = {f"{base}{name}": tensor for name, tensor in cases.base_state(model).items()}
    trained = cases.trained_state(family, MAM, model)
    batch = cases.inputs(family)
    decoder_ids = batch.pop("labels")
    m = cases.reference_model(family, MAM, own, trained)
    if family == "bart":
        batch["decoder_input_ids"] = decoder_ids.clamp(min=cases.PAD)
        expected = reference.bart(m, batch["input_ids"], batch["attention_mask"], batch["decoder_input_ids"])
    else:
        expected = reference.roberta(m, batch["input_ids"], batch["attention_mask"])
    official.load(model, MAM, trained)
    with torch.no_grad():
        assert (model(**batch).last_hidden_state - expected).abs().max() < 1e-10


@pytest.mark.parametrize(
    ("family", "model_class"), [("bart", BartForSequenceClassification), ("roberta", RobertaForMaskedLM)]
)
@pytest.mark.parametrize("options", [MAM, cases.BITFIT], ids=cases.title)
def test_other_heads_take_it_too(family, model_class, options):
    model = cases.build(family, model_class)
    trained = cases.trained_state(family, options, model)
    attachment = official.load(model, options, trained)
    assert {name.removeprefix("model/") for name in attachment.tensors() if name.startswith("model/")} == {
        name for name in trained if "bias" in name and options is cases.BITFIT
    }


@pytest.mark.parametrize("mode", ["prefix", "prefix_nomlp"])
@pytest.mark.parametrize("option", ["concat", "cross_attn"])
def test_a_shallower_decoder_leaves_prefixes_unused(mode, option):
    options = {"attn_mode": mode, "attn_option": option, "attn_bn": cases.BN, "mid_dim": cases.MID}
    model = cases.build("mbart", decoder_layers=1)
    trained = cases.draw(cases.inserted_shapes("mbart", options, decoder_layers=1))
    expected = cases.reference_model("mbart", options, cases.base_state(model), trained)
    logits = cases.reference_logits(expected, cases.inputs("mbart"))
    assert (loaded_logits("mbart", options, trained, model) - logits).abs().max() < 1e-10


def test_a_deeper_decoder_and_unequal_heads_are_refused_as_the_released_code_fails():
    deeper = cases.build("bart", decoder_layers=3)
    state = cases.trained_state("bart", cases.PREFIXES[0], deeper)
    assert_refuses(deeper, cases.PREFIXES[0], state, "IndexError", "encoder's 2 layers", "decoder of 3")
    uneven = cases.build("bart", encoder_attention_heads=4)
    assert_refuses(uneven, cases.PREFIXES[4], {}, "decoder's 2 heads", "encoder with 4")


@pytest.mark.parametrize("options", [MAM, cases.ADAPTERS[0], cases.LORA, cases.PROMPT, cases.BITFIT], ids=cases.title)
@pytest.mark.parametrize("fault", ["missing", "left over", "misshapen", "no tensor"])
def test_every_faulty_tensor_is_named_and_the_model_left_alone(options, fault):
    model = cases.tiny("bart")
    trained = cases.trained_state("bart", options, model)
    for name in list(trained)[:: max(len(trained) // 3, 1)]:
        state = dict(trained)
        if fault == "missing":
            del state[name]
        elif fault == "left over":
            name = name.replace("weight", "heavy").replace("bias", "bent") + "_2"
            state[name] = torch.zeros(1)
        elif fault == "misshapen":
            state[name] = torch.cat([state[name], state[name]])
        else:
            state[name] = state[name].tolist()
        words = {"missing": "is missing", "left over": "is left over", "misshapen": "has shape"}
        full = name if name.startswith("prompt_model.") or fault == "no tensor" else f"pretrained_model.{name}"
        assert_refuses(model, options, state, repr(full), words.get(fault, "must be a tensor"))


def test_a_name_near_the_missing_one_is_suggested():
    trained = cases.trained_state("bart", MAM, cases.tiny("bart"))
    trained["prompt_model.wte_encoder.weight"] = trained.pop("prompt_model.wte_enc.weight")
    message = "Nearest of those left over: 'prompt_model.wte_encoder.weight'"
    assert_refuses(cases.tiny("bart"), MAM, trained, "'prompt_model.wte_enc.weight' is missing", message)


def test_the_same_tensor_under_two_names_is_refused():
    trained = cases.trained_state("bart", cases.LORA, cases.tiny("bart"))
    name, value = next(iter(trained.items()))
    state = {**trained, f"pretrained_model.{name}": value}
    assert_refuses(cases.tiny("bart"), cases.LORA, state, "stands there twice")


def test_a_base_weight_of_another_shape_is_refused():
    trained = cases.trained_state("bart", cases.LORA, cases.tiny("bart"))
    state = {**trained, "model.shared.weight": torch.zeros(50, cases.D)}
    assert_refuses(cases.tiny("bart"), cases.LORA, state, "'pretrained_model.model.shared.weight' has shape (50, 8)")


def test_another_base_model_is_warned_of_once():
    model = cases.tiny("bart")
    trained = cases.trained_state("bart", cases.LORA, model)
    other = {name: tensor + 1 for name, tensor in cases.base_state(model).items() if "fc1" in name}
    with pytest.warns(UserWarning, match=r"^8 of the base model's own tensors have other values .*fc1") as warned:
        changed = loaded_logits("bart", cases.LORA, {**trained, **other})
    assert len(warned) == 1
    assert torch.equal(changed, loaded_logits("bart", cases.LORA, trained))


@pytest.mark.parametrize("family", cases.FAMILIES)
def test_what_the_released_code_builds_and_never_reads_is_left_aside(family):
    for options in [*cases.PREFIXES, *cases.ADAPTERS, *cases.ffn_options(family)[::6]]:
        model = cases.tiny(family)
        trained = cases.trained_state(family, options, model)
        attachment = official.load(model, options, trained)
        read = len(attachment.tensors())
        attachment.detach()
        dead = len(trained) - read
        relu = options.get("attn_option") == "cross_attn_relu"
        prefix = options.get("attn_mode", "").startswith("prefix")
        parallel = options.get("ffn_option") == "parallel"
        assert (dead > 0) == ((family == "roberta" and (prefix or parallel)) or (family == "mbart" and relu))


def test_dead_tensors_need_not_be_there():
    model = cases.tiny("roberta")
    trained = cases.trained_state("roberta", cases.PREFIXES[0], model)
    alive = {
        name: value
        for name, value in trained.items()
        if "_enc." not in name and "2." not in name.split("trans")[-1][:2]
    }
    alive = {name: value for name, value in alive.items() if not name.startswith("prompt_model.wte2")}
    assert len(alive) == 5
    assert torch.equal(
        loaded_logits("roberta", cases.PREFIXES[0], alive), loaded_logits("roberta", cases.PREFIXES[0], trained)
    )


@pytest.mark.parametrize("options", [MAM, cases.BITFIT], ids=cases.title)
def test_a_carried_head_is_loaded_stays_frozen_and_goes_with_the_attachment(options):
    model = cases.build("roberta")
    before = snapshot(model)
    trained = cases.trained_state("roberta", options, model)
    head = {name: tensor + 0.5 for name, tensor in cases.base_state(model).items() if name.startswith("classifier.")}
    state = {**head, **trained}
    m = cases.reference_model("roberta", options, {**cases.base_state(model), **head}, trained)
    expected = cases.reference_logits(m, cases.inputs("roberta"))
    attachment = official.load(model, options, state)
    with torch.no_grad():
        assert (model(**cases.inputs("roberta")).logits - expected).abs().max() < 1e-10
    bitfit = options is cases.BITFIT
    for name, parameter in model.classifier.named_parameters():
        assert parameter.requires_grad == (bitfit and name.endswith("bias"))
    unipetl.activate(model, None)
    assert torch.equal(model.classifier.dense.weight, before[0]["classifier.dense.weight"])
    unipetl.activate(model, attachment.name)
    assert torch.equal(model.classifier.dense.weight, head["classifier.dense.weight"])
    attachment.detach()
    after = snapshot(model)
    assert all(torch.equal(after[0][name], before[0][name]) for name in before[0])
    assert after[1:] == before[1:]


def test_without_a_carried_head_the_head_is_frozen_and_no_part_of_it():
    model = cases.build("roberta")
    state = {**cases.base_state(model), **cases.trained_state("roberta", MAM, model)}
    attachment = official.load(model, MAM, state)
    assert not any(name.startswith("model/") for name in attachment.tensors())
    assert not any(parameter.requires_grad for parameter in model.classifier.parameters())


def test_values_take_the_models_dtype_and_the_given_tensors_stay_as_they_are():
    model = cases.build("bart").float()
    trained = cases.trained_state("bart", MAM, model)
    kept = copy.deepcopy(trained)
    attachment = official.load(model, MAM, trained)
    assert {tensor.dtype for tensor in attachment.tensors().values()} == {torch.float32}
    assert all(torch.equal(kept[name], trained[name]) for name in kept)


def test_a_second_attachment_takes_its_name_or_is_refused():
    model = cases.build("bart")
    trained = cases.trained_state("bart", MAM, model)
    official.load(model, MAM, trained, name="one")
    with pytest.raises(AttachError, match="already has an attachment 'one'"):
        official.load(model, MAM, trained, name="one")
    assert [one.name for one in unipetl.attachments(model)] == ["one"]
    assert official.load(model, MAM, trained, name="two").name == "two"


def test_a_failure_while_copying_leaves_the_model_as_it_was(monkeypatch):
    def fail(*_):
        raise RuntimeError("no memory left")

    model = cases.tiny("roberta")
    before = snapshot(model)
    monkeypatch.setattr(official, "_copy", fail)
    with pytest.raises(RuntimeError, match="no memory left"):
        official.load(model, MAM, cases.trained_state("roberta", MAM, model))
    after = snapshot(model)
    assert before[1:] == after[1:]
    assert unipetl.attachments(model) == ()


def test_models_the_released_code_does_not_know_are_refused():
    decoder_only = BartForCausalLM(cases.config("bart", is_decoder=True))
    with pytest.raises(InteropError, match="has not both an encoder and a decoder"):
        official.load(decoder_only, MAM, {})
    crossed = RobertaModel(cases.config("roberta", is_decoder=True, add_cross_attention=True))
    with pytest.raises(InteropError, match="no RoBERTa with cross-attention"):
        official.load(crossed, MAM, {})
    with pytest.raises(InteropError, match="knows bart, mbart, roberta; this is 'Linear'"):
        official.load(torch.nn.Linear(2, 2), MAM, {})


def test_it_is_saved_and_loaded_like_any_other(tmp_path):
    model = cases.build("roberta")
    trained = cases.trained_state("roberta", MAM, model)
    head = {name: tensor + 0.5 for name, tensor in cases.base_state(model).items() if name.startswith("classifier.")}
    attachment = official.load(model, MAM, {**head, **trained})
    with torch.no_grad():
        expected = model(**cases.inputs("roberta")).logits
    unipetl.save(model, tmp_path / "run")
    attachment.detach()
    unipetl.load(model, tmp_path / "run")
    with torch.no_grad():
        assert torch.equal(model(**cases.inputs("roberta")).logits, expected)
