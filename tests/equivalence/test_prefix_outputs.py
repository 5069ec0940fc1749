"""What an attached model returns: the usual shapes under every head, mask and option; then the bare model again."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    BertForMultipleChoice,
    DistilBertForMultipleChoice,
    GPT2DoubleHeadsModel,
    RobertaForMultipleChoice,
)

import unipetl
from equivalence.checks import randomize
from equivalence.tiny import DECODERS, ENCODERS, MAM, PREFIX, PROMPT, SEQ2SEQ, attached, first, model, words
from unipetl.errors import AttachError
from unipetl.testing import FAMILIES, batch, family

HEADS = [(one.name, head) for one in FAMILIES for head in one.heads]
METHODS = [PROMPT + " + lora(rank=2)", MAM + " + houlsby(rank=2)"]


def outputs(one: Any, inputs: dict[str, Tensor], **more: Any) -> Any:
    with torch.no_grad():
        return one(**inputs, **more)


def flat(output: Any) -> list[Tensor]:
    """Return every tensor in an output, caches left out."""
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, (list, tuple)):
        return [tensor for part in output for tensor in flat(part)]
    if hasattr(output, "items"):
        return [tensor for name, part in output.items() if name != "past_key_values" for tensor in flat(part)]
    return []


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("name", "head"), HEADS)
def test_every_head_keeps_its_shapes_and_comes_back_exactly(name: str, head: str, method: str) -> None:
    if name == "whisper" and PROMPT in method:
        pytest.skip("an encoder of audio reads no tokens")
    one = model(name, head)
    inputs = batch(one, padding="none" if name == "whisper" else "right")
    bare = outputs(one, inputs, output_hidden_states=True)
    flags = {key: parameter.requires_grad for key, parameter in one.named_parameters()}
    attachment = unipetl.attach(one, method)
    tensors = attachment.tensors()
    randomize({key: tensor for key, tensor in tensors.items() if not key.startswith("model/")})
    changed = outputs(one, inputs, output_hidden_states=True)
    unipetl.activate(one, None)
    switched_off = outputs(one, inputs, output_hidden_states=True)
    unipetl.activate(one, "default")
    on_again = outputs(one, inputs, output_hidden_states=True)
    attachment.detach()
    after = outputs(one, inputs, output_hidden_states=True)

    assert (first_of(changed) - first_of(bare)).abs().max() > 1e-4
    longer = PROMPT in method and one.config.is_encoder_decoder
    for a, b in zip(flat(changed), flat(bare), strict=True):
        assert a.shape == b.shape or (longer and a.shape[1] == b.shape[1] + 5)  # the encoder's own results
    for same in (switched_off, after):
        assert all(torch.equal(a, b) for a, b in zip(flat(same), flat(bare), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(flat(on_again), flat(changed), strict=True))
    assert {key: parameter.requires_grad for key, parameter in one.named_parameters()} == flags


def first_of(output: Any) -> Tensor:
    return output.start_logits if hasattr(output, "start_logits") else first(output)


@pytest.mark.parametrize("method", [PREFIX, PROMPT, "ungated_prefix(length=5, mlp=none)"])
@pytest.mark.parametrize("name", [*ENCODERS, *DECODERS])
def test_hidden_states_and_attentions_have_one_row_per_token(name: str, method: str) -> None:
    one = model(name, "base", attn_implementation="eager")
    with attached(one, method):
        out = outputs(one, {"input_ids": words()}, output_hidden_states=True, output_attentions=True)
    depth = 2
    assert [part.shape for part in out.hidden_states] == [(2, 7, 16)] * (depth + 1)
    assert torch.equal(out.hidden_states[-1], out.last_hidden_state)
    length = 12 if method == PROMPT else 7  # a prompt is part of the sequence that attends; a prefix is not
    assert [part.shape[-2:] for part in out.attentions] == [(length, length)] * depth
    mass = torch.stack(out.attentions).sum(-1)
    if method == PREFIX:  # the rest of the attention's mass is on the prefix
        assert (mass > 0).all()
        assert (mass < 1 - 1e-6).any()
    else:
        torch.testing.assert_close(mass, torch.ones_like(mass), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["bart", "t5"])
def test_an_encoder_decoder_returns_its_attentions(name: str) -> None:
    one = model(name, "base", attn_implementation="eager")
    ids = words()
    with attached(one, PREFIX):
        out = outputs(one, {"input_ids": ids, "decoder_input_ids": ids[:, :4]}, output_attentions=True)
    assert {part.shape[-2:] for part in out.encoder_attentions} == {(7, 7)}
    assert {part.shape[-2:] for part in out.decoder_attentions} == {(4, 4)}
    assert {part.shape[-2:] for part in out.cross_attentions} == {(4, 7)}


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_the_first_token_and_no_prompt_feeds_the_head(name: str) -> None:
    """The classifier reads row 0 of the encoder's result: that of the true first token, which sees the prompt."""
    one = model(name, "sequence_classification")
    base = getattr(one, name)
    ids = words()
    with attached(one, PROMPT), torch.no_grad():
        logits = one(input_ids=ids).logits
        tokens = base(input_ids=ids).last_hidden_state
        pooled = base.pooler(tokens) if base.pooler is not None else tokens
        assert tokens.shape == (2, 7, 16)
        torch.testing.assert_close(one.classifier(pooled), logits, rtol=0, atol=0)
        wrong = tokens.roll(1, dims=1)
        assert (one.classifier(base.pooler(wrong) if base.pooler is not None else wrong) - logits).abs().max() > 1e-3


CHOICES = [BertForMultipleChoice, RobertaForMultipleChoice, DistilBertForMultipleChoice]


@pytest.mark.parametrize("method", [PREFIX, PROMPT, MAM])
@pytest.mark.parametrize("model_class", CHOICES, ids=lambda one: one.__name__)
def test_multiple_choice_is_every_choice_on_its_own(model_class: type[Any], method: str) -> None:
    which = family(model_class.__name__.removesuffix("ForMultipleChoice").lower())
    one = model_class(model_class.config_class(**which.settings)).double().eval()
    ids = words(6).view(2, 3, 7)
    mask = torch.ones_like(ids)
    mask[1, 2, 5:] = 0
    with attached(one, method):
        together = outputs(one, {"input_ids": ids, "attention_mask": mask}).logits
        apart = [
            outputs(one, {"input_ids": ids[:, i : i + 1], "attention_mask": mask[:, i : i + 1]}).logits
            for i in range(3)
        ]
    assert together.shape == (2, 3)
    torch.testing.assert_close(together, torch.cat(apart, dim=1), rtol=0, atol=1e-12)
    assert (together - outputs(one, {"input_ids": ids, "attention_mask": mask}).logits).abs().max() > 1e-6


def test_a_model_with_two_heads_over_several_choices() -> None:
    one = GPT2DoubleHeadsModel(
        GPT2DoubleHeadsModel.config_class(**family("gpt2").settings, num_labels=1)
        if "num_labels" not in family("gpt2").settings
        else GPT2DoubleHeadsModel.config_class(**{**family("gpt2").settings, "num_labels": 1})
    )
    one = one.double().eval()
    inputs = {"input_ids": words(6).view(2, 3, 7), "mc_token_ids": torch.full((2, 3), 6)}
    bare = outputs(one, inputs)
    with attached(one, PREFIX):
        changed = outputs(one, inputs)
    assert changed.logits.shape == (2, 3, 7, 50)
    assert (changed.mc_logits - bare.mc_logits).abs().max() > 1e-6


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert", "bart", "gpt2", "llama"])
def test_a_mask_given_in_more_dimensions_is_the_same_mask(name: str, implementation: str) -> None:
    one = model(name, "base", attn_implementation=implementation)
    ids = words()
    flat_mask = torch.ones_like(ids)
    flat_mask[1, 5:] = 0
    causal = name in DECODERS
    seen = flat_mask[:, None, None, :].bool().expand(2, 1, 7, 7)
    seen = seen & torch.ones(7, 7, dtype=torch.bool).tril() if causal else seen
    lowest = torch.finfo(torch.float64).min
    additive = torch.zeros(seen.shape, dtype=torch.float64).masked_fill(~seen, lowest)
    masks = {"4-D, additive": additive}  # transformers 5 reads a mask in three dimensions as something else
    if implementation == "sdpa":
        masks["4-D, Boolean"] = seen
    more = {"decoder_input_ids": ids} if name == "bart" else {}
    accepted = 0
    for mask in masks.values():
        try:
            bare = first(outputs(one, {"input_ids": ids, "attention_mask": mask, **more}))
        except (ValueError, RuntimeError, AttributeError):
            continue  # this family reads no such mask without us either
        accepted += 1
        with attached(one, MAM):
            want = first(outputs(one, {"input_ids": ids, "attention_mask": flat_mask, **more}))
            got = first(outputs(one, {"input_ids": ids, "attention_mask": mask, **more}))
        real = slice(None) if name == "bart" else flat_mask.bool()
        torch.testing.assert_close(got[real], want[real], rtol=0, atol=1e-12)
        assert (got - bare).abs().max() > 1e-3
    assert accepted


def test_a_prompt_refuses_a_mask_it_cannot_lengthen() -> None:
    one = model("bert", "base")
    mask = torch.zeros(2, 1, 7, 7, dtype=torch.float64)
    with attached(one, PROMPT), pytest.raises(AttachError, match="plain"):
        one(input_ids=words(), attention_mask=mask)


@pytest.mark.parametrize("name", SEQ2SEQ)
def test_encoder_decoder_models_classify(name: str) -> None:
    if "sequence_classification" not in family(name).heads:
        pytest.skip("this family has no such head")
    one = model(name, "sequence_classification")
    inputs = batch(one, padding="right")
    with attached(one, MAM):
        loss = one(**inputs).loss
        loss.backward()
        gradients = {key: p.grad for key, p in one.named_parameters() if p.requires_grad}
        assert all(gradient is not None and gradient.abs().max() > 0 for gradient in gradients.values())
        assert any("classif" in key for key in gradients)
