"""A prefix or a prompt takes no position away: full-length inputs work, and every token keeps the position it had."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from equivalence.checks import case, compare
from equivalence.tiny import DECODERS, ENCODERS, PREFIX, PROMPT, attached, first, model, padded, words

#: Family -> the longest text its positions allow.
LONGEST = {"bert": 40, "roberta": 38, "distilbert": 40, "bart": 40, "mbart": 40, "marian": 40, "gpt2": 40}
#: Family -> the modules that look positions up, in the base model.
TABLES = {
    "bert": ["embeddings.position_embeddings"],
    "roberta": ["embeddings.position_embeddings"],
    "distilbert": ["embeddings.position_embeddings"],
    "gpt2": ["wpe"],
    "bart": ["encoder.embed_positions", "decoder.embed_positions"],
    "mbart": ["encoder.embed_positions", "decoder.embed_positions"],
    "marian": ["encoder.embed_positions", "decoder.embed_positions"],
}


def call(one: Any, ids: Tensor, **more: Any) -> Tensor:
    if one.config.is_encoder_decoder:
        more = {"decoder_input_ids": ids.flip(1), **more}
    with torch.no_grad():
        return first(one(input_ids=ids, **more))


@pytest.mark.parametrize("method", [PREFIX, PROMPT])
@pytest.mark.parametrize("family", LONGEST)
def test_a_text_of_the_models_full_length_fits(family: str, method: str) -> None:
    one = model(family, "base")
    ids = words(2, LONGEST[family])
    bare = call(one, ids)
    with attached(one, method):
        full = call(one, ids)
        with pytest.raises((IndexError, RuntimeError, ValueError)):
            call(one, words(2, LONGEST[family] + 1))  # it was the longest
        again = call(one, ids)
    assert full.shape == bare.shape
    assert (full - bare).abs().max() > 1e-3
    assert torch.equal(full, again), "a failed call left something behind"
    assert torch.equal(call(one, ids), bare)


@pytest.mark.parametrize("method", [PREFIX, PROMPT])
@pytest.mark.parametrize("family", TABLES)
def test_the_looked_up_positions_are_those_of_the_bare_model(family: str, method: str) -> None:
    one = model(family, "base")
    ids = words()
    seen: list[Tensor] = []
    handles = []
    for path in TABLES[family]:
        table = one.get_submodule(path)
        # What the table returns for the tokens: its last n rows (a prompt's own rows get none).
        handles.append(table.register_forward_hook(lambda module, args, out: seen.append(out[..., -7:, :].clone())))
    bare = call(one, ids)
    without = list(seen)
    seen.clear()
    with attached(one, method):
        # Ours were registered after the tests' hooks: these see what the table itself gives.
        assert (call(one, ids) - bare).abs().max() > 1e-3
    for handle in handles:
        handle.remove()
    assert len(seen) == len(without) > 0
    assert all(torch.equal(a.expand_as(b), b) for a, b in zip(without, seen, strict=True))


@pytest.mark.parametrize("method", [PREFIX, PROMPT, PREFIX + " + " + PROMPT])
@pytest.mark.parametrize("family", [*ENCODERS, *DECODERS])
def test_token_ids_and_their_vectors_give_the_same_result(family: str, method: str) -> None:
    one = model(family, "base")
    ids = words()
    mask = torch.ones_like(ids)
    with attached(one, method), torch.no_grad():
        by_id = first(one(input_ids=ids, attention_mask=mask))
        vectors = one.get_input_embeddings()(ids)
        by_vector = first(one(inputs_embeds=vectors, attention_mask=mask))
        moved = first(one(inputs_embeds=vectors.roll(1, dims=1), attention_mask=mask))
    torch.testing.assert_close(by_vector, by_id, rtol=0, atol=1e-12)
    assert (moved - by_id).abs().max() > 1e-3


@pytest.mark.parametrize("method", [PREFIX, PROMPT])
@pytest.mark.parametrize("family", ["bart", "mbart", "marian", "t5"])
def test_the_encoders_token_ids_and_their_vectors_give_the_same_result(family: str, method: str) -> None:
    one = model(family, "base")
    ids = words()
    vectors = one.get_input_embeddings()(ids).detach()
    if family != "t5":
        vectors = vectors * getattr(one.encoder, "embed_scale", 1.0)
    with attached(one, method), torch.no_grad():
        by_id = first(one(input_ids=ids, decoder_input_ids=ids))
        by_vector = first(one(inputs_embeds=vectors, decoder_input_ids=ids))
    torch.testing.assert_close(by_vector, by_id, rtol=0, atol=1e-12)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("method", [PREFIX, PROMPT, PREFIX + " + " + PROMPT])
@pytest.mark.parametrize("family", [*ENCODERS, *DECODERS])
def test_a_padded_row_is_the_row_alone(family: str, method: str, side: str) -> None:
    """Rows of the bare model do not depend on padding where it can tell positions; with a prefix they still do not."""
    if side == "left" and family in ("bert", "distilbert", "gpt2"):
        pytest.skip("these count positions from the first column, padding or not")
    if side == "left" and family == "mistral" and PROMPT in method:
        pytest.skip("a window counts columns, so padding between the prompt and the text takes some of it")
    one = model(family, "base")
    inputs = padded(words(), side)
    real = inputs["attention_mask"][-1].bool()
    with attached(one, method), torch.no_grad():
        together = first(one(**inputs))[-1][real]
        alone = first(one(input_ids=inputs["input_ids"][-1:, real]))[0]
        with_mask = first(one(input_ids=inputs["input_ids"][-1:, real], attention_mask=torch.ones(1, 5).long()))[0]
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5 if family in DECODERS else 1e-12)
    torch.testing.assert_close(with_mask, alone, rtol=0, atol=1e-12)


def test_explicit_positions_are_kept() -> None:
    """What the caller says about positions is not second-guessed: shifted ones change the result."""
    one = model("llama", "base")
    ids = words()
    with attached(one, PREFIX), torch.no_grad():
        plain = first(one(input_ids=ids))
        given = first(one(input_ids=ids, position_ids=torch.arange(7)[None]))
        shifted = first(one(input_ids=ids, position_ids=torch.arange(7)[None] + 4))
    assert torch.equal(plain, given)
    assert (shifted - plain).abs().max() > 1e-4


@pytest.mark.parametrize("family", ["bart", "mbart"])
def test_a_prompt_is_not_scaled_with_the_tokens(family: str) -> None:
    one = case(family, "right", scale_embedding=True)
    assert one.model.encoder.config.scale_embedding
    compare(one, PROMPT)


def test_a_marian_prompt_is_not_scaled_with_the_tokens() -> None:
    """Marian scales outside its embedding: the prompt must be the vector that enters the first block."""
    scaled = model("marian", "base", scale_embedding=True)
    entered: list[Tensor] = []
    handle = scaled.encoder.layers[0].register_forward_pre_hook(
        lambda module, args, kwargs: entered.append(args[0] if args else kwargs["hidden_states"]), with_kwargs=True
    )
    with attached(scaled, PROMPT) as tensors:
        call(scaled, words())
        prompt = tensors["encoder.input/parallel_prompt/prompt"].detach().clone()
    handle.remove()
    assert torch.equal(entered[0][0, :5], prompt)
    assert scaled.encoder.embed_scale == 4.0
