"""Every query sees the whole prefix, and of the text what it saw before: padding, causality, windows, backends."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from equivalence.checks import Case, case, compare
from equivalence.oracle_weights import read
from equivalence.tiny import DECODERS, ENCODERS, MAM, PREFIX, PROMPT, SEQ2SEQ, attached, first, model, padded, words

SIDES = ("none", "ones", "right", "left")
METHODS = (PREFIX, "ungated_prefix(length=5, mlp=none) + multi_head_parallel_adapter(rank=5)")


def call(one: Any, inputs: dict[str, Tensor]) -> Tensor:
    if one.config.is_encoder_decoder:
        inputs = {**inputs, "decoder_input_ids": words(len(inputs["input_ids"]), seed=9)}
    with torch.no_grad():
        return first(one(**inputs))


def real(one: Any, inputs: dict[str, Tensor], rows: Tensor) -> Tensor:
    mask = inputs.get("attention_mask")
    return rows if mask is None or one.config.is_encoder_decoder else rows[mask.bool()]


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", [*ENCODERS, *DECODERS, *SEQ2SEQ])
def test_eager_and_sdpa_agree_and_padding_never_hides_the_prefix(family: str, method: str, side: str) -> None:
    inputs = padded(words(), side)
    results = {}
    for implementation in ("eager", "sdpa"):
        # In float64 the rotary models' own eager attention makes rows of padding NaN: it masks with the smallest
        # float64 and computes its softmax in float32.
        dtype = torch.float32 if family in DECODERS else torch.float64
        one = model(family, "base", attn_implementation=implementation, dtype=dtype)
        bare = real(one, inputs, call(one, inputs))
        with attached(one, method):
            results[implementation] = real(one, inputs, call(one, inputs))
        rows = (results[implementation] - bare).abs().amax(-1).flatten()
        assert rows.min() > 1e-3, "some token does not see the prefix"
    torch.testing.assert_close(results["eager"], results["sdpa"], rtol=0, atol=2e-5)  # some eager softmaxes are float32


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("method", [PREFIX, MAM, PROMPT])
@pytest.mark.parametrize("family", DECODERS)
def test_a_token_changes_itself_and_later_ones_and_no_earlier_one(
    family: str, method: str, implementation: str
) -> None:
    one = model(family, "base", attn_implementation=implementation)
    ids = words(1)
    with attached(one, method):
        before = call(one, {"input_ids": ids})
        for place in (0, 3, 6):
            other = ids.clone()
            other[0, place] = 5 + (other[0, place] - 4) % 45
            moved = (call(one, {"input_ids": other}) - before).abs().amax(-1)[0]
            reach = 7 if family != "mistral" else min(7, place + 7)  # two layers with a window of four
            assert (moved[:place] == 0).all()
            assert (moved[place:reach] > 1e-7).all()


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("family", SEQ2SEQ)
def test_decoders_are_causal_and_see_their_own_text(family: str, implementation: str) -> None:
    one = model(family, "base", attn_implementation=implementation)
    ids, own = words(1), words(1, 6, seed=4)
    with attached(one, PREFIX), torch.no_grad():
        before = first(one(input_ids=ids, decoder_input_ids=own))
        for place in (0, 3):
            other = own.clone()
            other[0, place] = 5 + (other[0, place] - 4) % 45
            moved = (first(one(input_ids=ids, decoder_input_ids=other)) - before).abs().amax(-1)[0]
            assert (moved[:place] == 0).all()
            assert (moved[place:] > 1e-7).all()


@pytest.mark.parametrize("method", [PREFIX, MAM, "ungated_prefix(length=5, mlp=none)"])
@pytest.mark.parametrize("length", [3, 4, 5, 11])
def test_a_sliding_window_cuts_the_text_and_not_the_prefix(length: int, method: str) -> None:
    """Against the plain functions: own keys within a window of four, learned keys from everywhere."""
    one = case("mistral").model
    assert one.config.sliding_window == 4
    ids = words(2, length)
    mask = torch.ones_like(ids)
    mask[1, -1:] = 0
    compare(Case(one, {"input_ids": ids, "attention_mask": mask}, read(one)), method)


def test_eager_attention_slides_the_same_window() -> None:
    ids = words(2, 11)
    results = []
    for implementation, window in (("eager", 4), ("sdpa", 4), ("sdpa", None)):
        one = model("mistral", "base", attn_implementation=implementation, sliding_window=window)
        with attached(one, PREFIX):
            results.append(call(one, {"input_ids": ids}))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=2e-5)
    assert (results[1][:, 5:] - results[2][:, 5:]).abs().max() > 1e-3


@pytest.mark.parametrize("method", [PREFIX, MAM, "multi_head_parallel_adapter(rank=5)"])
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_heads_need_not_have_the_width_divided_by_their_number(implementation: str, method: str) -> None:
    one = model("qwen3", "base", attn_implementation=implementation)
    heads = one.config.num_attention_heads
    assert one.config.head_dim * heads != one.config.hidden_size
    with attached(one, method) as tensors:
        result = call(one, {"input_ids": words()})
        keys = [tensor for name, tensor in tensors.items() if name.endswith("/key")]
    assert {tuple(key.shape) for key in keys} == {(5, one.config.num_key_value_heads * one.config.head_dim)}
    assert (result - call(one, {"input_ids": words()})).abs().max() > 1e-3


def test_llama_with_an_explicit_head_size_is_the_oracles() -> None:
    for method in (PREFIX, MAM, "ungated_prefix(length=5, mlp=none)"):
        compare(case("llama", "right", head_dim=6), method)


@pytest.mark.parametrize(("family", "first_side", "second_side"), [
    (family, a, b)
    for family in ("bert", "llama", "gpt2", "bart")
    for a, b in itertools.pairwise(("none", "right", "left", "none"))
])  # fmt: skip
def test_calls_leave_nothing_behind(family: str, first_side: str, second_side: str) -> None:
    """The result of a call does not depend on the call before it, whatever masks the two have."""
    one = model(family, "base")
    with attached(one, PREFIX + " + " + PROMPT):
        alone = call(one, padded(words(), second_side))
        call(one, padded(words(3, 9), first_side))
        again = call(one, padded(words(), second_side))
    assert torch.equal(alone, again)


@pytest.mark.parametrize("family", ["bert", "llama", "bart"])
def test_the_backend_may_change_while_a_prefix_is_attached(family: str) -> None:
    one = model(family, "base", attn_implementation="sdpa")
    inputs = padded(words(), "right")
    with attached(one, PREFIX):
        sdpa = real(one, inputs, call(one, inputs))
        one.set_attn_implementation("eager")
        try:
            eager = real(one, inputs, call(one, inputs))
            assert one.config._attn_implementation == "eager"
        finally:
            one.set_attn_implementation("sdpa")
    torch.testing.assert_close(eager, sdpa, rtol=0, atol=2e-5)
    assert not torch.equal(eager, sdpa), "both ran the same kernel"
