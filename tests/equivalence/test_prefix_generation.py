"""Generation computes what the forward pass computes: with and without a cache, greedy and beams, padded and not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import BartForCausalLM, MarianForCausalLM, MBartForCausalLM, WhisperForCausalLM

import unipetl
from equivalence.tiny import DECODERS, MAM, PREFIX, PROMPT, SEQ2SEQ, attached, model, padded, words
from unipetl.errors import PlanError
from unipetl.testing import family, randomize

UNGATED = "ungated_prefix(length=5, mlp=none) + lora(rank=2, at=all)"
METHODS = [MAM, UNGATED, PROMPT]
BEAMS = {"num_beams": 3, "num_return_sequences": 2, "length_penalty": 0.0}


def scored(one: Any, inputs: dict[str, Tensor], **options: Any) -> Any:
    options = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None, **options}
    with torch.no_grad():
        return one.generate(**inputs, output_scores=True, return_dict_in_generate=True, **options)


def taught(one: Any, inputs: dict[str, Tensor], sequences: Tensor) -> Tensor:
    """Return the log-probabilities (b, new, words) of each generated step, from one forward pass."""
    with torch.no_grad():
        if one.config.is_encoder_decoder:
            logits = one(**inputs, decoder_input_ids=sequences).logits[:, :-1]
        else:
            new = sequences.shape[1] - inputs["input_ids"].shape[1]
            mask = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"]))
            mask = torch.cat([mask, mask.new_ones(len(mask), new)], dim=1)
            more = {"position_ids": (mask.cumsum(-1) - 1).clamp(min=0)} if one.config.model_type == "gpt2" else {}
            logits = one(input_ids=sequences, attention_mask=mask, **more).logits[:, -new - 1 : -1]
    return logits.log_softmax(-1)


def same(a: Tensor, b: Tensor) -> None:
    """Assert that scores agree; generate gives them in float32, summed over beams at worst."""
    torch.testing.assert_close(a, b, rtol=0, atol=2e-5, check_dtype=False)


def moved(one: Any, inputs: dict[str, Tensor], method: str) -> None:
    """Assert that ``method`` changes the scores of generation, and leaves them as they were."""
    before = scored(one, inputs).scores
    with attached(one, method):
        during = scored(one, inputs).scores
    after = scored(one, inputs).scores
    assert (during[0] - before[0]).abs().max() > 1e-3
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", [*DECODERS, *SEQ2SEQ])
def test_greedy_steps_are_the_forward_pass_with_and_without_a_cache(name: str, method: str) -> None:
    one = model(name)
    # A prompt is part of the text in the window of a sliding attention, and padding takes some of it.
    windowed = name == "mistral" and method == PROMPT
    side = "ones" if windowed else "right" if one.config.is_encoder_decoder else "left"
    inputs = padded(words(length=5 if windowed else 7), side)
    with attached(one, method):
        cached = scored(one, inputs)
        plain = scored(one, inputs, use_cache=False)
        want = taught(one, inputs, cached.sequences)
    assert torch.equal(cached.sequences, plain.sequences)
    for step, (a, b) in enumerate(zip(cached.scores, plain.scores, strict=True)):
        same(a, b)
        same(a.log_softmax(-1), want[:, step])
    moved(one, inputs, method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["gpt2", "llama", "bart", "t5_gated"])
def test_beams_are_the_same_without_a_cache_and_score_as_the_forward_pass(name: str, method: str) -> None:
    one = model(name)
    inputs = padded(words(), "right" if one.config.is_encoder_decoder else "left")
    with attached(one, method):
        cached = scored(one, inputs, **BEAMS)
        plain = scored(one, inputs, use_cache=False, **BEAMS)
        repeated = {key: tensor.repeat_interleave(2, dim=0) for key, tensor in inputs.items()}
        want = taught(one, repeated, cached.sequences)
    assert torch.equal(cached.sequences, plain.sequences)
    same(cached.sequences_scores, plain.sequences_scores)
    new = cached.sequences[:, -want.shape[1] :]
    total = want.gather(-1, new[..., None])[..., 0].sum(-1)
    same(cached.sequences_scores, total)


@pytest.mark.parametrize("method", [MAM, UNGATED])
@pytest.mark.parametrize("name", ["gpt2", "llama", "mistral", "qwen3", "bart"])
def test_a_static_cache_gives_the_same_tokens_and_scores(name: str, method: str) -> None:
    one = model(name)
    inputs = padded(words(), "right" if one.config.is_encoder_decoder else "left")
    with attached(one, method):
        dynamic = scored(one, inputs)
        static = scored(one, inputs, cache_implementation="static", disable_compile=True)
    assert torch.equal(dynamic.sequences, static.sequences)
    for a, b in zip(dynamic.scores, static.scores, strict=True):
        same(a, b)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", DECODERS)
def test_a_left_padded_batch_generates_what_each_row_alone_generates(name: str, method: str) -> None:
    if name == "mistral" and method == PROMPT:
        pytest.skip("a window counts columns, so padding between the prompt and the text takes some of it")
    one = model(name)
    inputs = padded(words(), "left")
    with attached(one, method):
        together = scored(one, inputs)
        alone = scored(one, {"input_ids": inputs["input_ids"][-1:, 2:], "attention_mask": torch.ones(1, 5).long()})
    assert torch.equal(together.sequences[-1, 7:], alone.sequences[0, 5:])
    for a, b in zip(together.scores, alone.scores, strict=True):
        same(a[-1:], b)


@pytest.mark.parametrize("method", [MAM, UNGATED])
@pytest.mark.parametrize("name", DECODERS)
def test_the_cache_holds_the_text_and_no_prefix(name: str, method: str) -> None:
    one = model(name)
    ids = words()
    with attached(one, method), torch.no_grad():
        cache = one(input_ids=ids[:, :6], use_cache=True).past_key_values
        assert cache.get_seq_length() == 6
        last = one(input_ids=ids[:, 6:], past_key_values=cache, use_cache=True)
        assert last.past_key_values.get_seq_length() == 7
        whole = one(input_ids=ids).logits[:, -1:]
    same(last.logits, whole)


@pytest.mark.parametrize("name", SEQ2SEQ)
def test_the_decoders_cache_holds_the_text_and_no_prefix(name: str) -> None:
    one = model(name)
    ids, own = words(), words(2, 5, seed=8)
    with attached(one, MAM), torch.no_grad():
        cache = one(input_ids=ids, decoder_input_ids=own[:, :4], use_cache=True).past_key_values
        assert cache.get_seq_length() == 4
        assert cache.cross_attention_cache.get_seq_length() == 7
        last = one(input_ids=ids, decoder_input_ids=own[:, 4:], past_key_values=cache, use_cache=True).logits
        whole = one(input_ids=ids, decoder_input_ids=own).logits[:, -1:]
    same(last, whole)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["gpt2", "llama", "bart", "mbart", "t5"])
def test_generation_starts_from_vectors_and_from_a_positional_argument(name: str, method: str) -> None:
    one = model(name)
    ids = words()
    options = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None}
    told = {"output_scores": True, "return_dict_in_generate": True}
    with attached(one, method), torch.no_grad():
        vectors = one.get_input_embeddings()(ids)
        by_name = one.generate(input_ids=ids, **options, **told)
        positional = one.generate(ids, **options)
        by_vector = one.generate(inputs_embeds=vectors, **options, **told)
        other = one.generate(inputs_embeds=vectors.flip(1), **options, **told)
    assert torch.equal(by_name.sequences, positional)
    assert torch.equal(by_name.sequences[:, -4:], by_vector.sequences[:, -4:])
    for a, b in zip(by_name.scores, by_vector.scores, strict=True):
        same(a, b)
    assert (other.scores[0] - by_vector.scores[0]).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["bart", "llama"])
def test_sampling_draws_from_the_forward_pass(name: str) -> None:
    one = model(name)
    inputs = padded(words(), "none")
    with attached(one, MAM):
        torch.manual_seed(3)
        drawn = scored(one, inputs, do_sample=True, top_k=0, temperature=1.0)
        want = taught(one, inputs, drawn.sequences)
    for step, scores in enumerate(drawn.scores):
        same(scores.log_softmax(-1), want[:, step])


def decoder_of(model_class: type[Any], which: str) -> Any:
    config = model_class.config_class(**{**family(which).settings, "encoder_layers": 3, "scale_embedding": True})
    one = model_class(config)
    randomize(one)
    return one.double().eval()


@pytest.mark.parametrize("method", [PREFIX, PROMPT])
@pytest.mark.parametrize(("model_class", "which"), [(BartForCausalLM, "bart"), (MBartForCausalLM, "mbart")])
def test_a_decoder_alone_generates_with_the_positions_it_had(model_class: type[Any], which: str, method: str) -> None:
    one = decoder_of(model_class, which)
    inputs = padded(words(), "ones")
    rows: list[Tensor] = []
    table = one.model.decoder.embed_positions
    handle = table.register_forward_hook(lambda module, args, out: rows.append(out.clone()))
    with attached(one, method):
        cached = scored(one, inputs)
        used, offset = rows[:], table.offset
        plain = scored(one, inputs, use_cache=False)
        want = taught(one, inputs, cached.sequences)
    handle.remove()
    assert torch.equal(torch.cat([part[0] for part in used]), table.weight[offset : offset + 10])
    assert torch.equal(cached.sequences, plain.sequences)
    for step, scores in enumerate(cached.scores):
        same(scores.log_softmax(-1), want[:, step])


@pytest.mark.parametrize(("model_class", "which"), [(MarianForCausalLM, "marian"), (WhisperForCausalLM, "whisper")])
def test_a_decoder_that_would_scale_a_prompt_is_refused_one(model_class: type[Any], which: str) -> None:
    one = decoder_of(model_class, which)
    with pytest.raises(PlanError, match="this model has none"):
        unipetl.plan(PROMPT, one)
    with attached(one, PREFIX):
        pass
