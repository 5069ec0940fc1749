"""Every functional form at every kind of place, against the paper's equations in float64."""

from __future__ import annotations

import pytest
import torch

import unipetl
from equivalence.checks import CLOSE, EXACT, ORACLE_FAMILIES, case, compare, randomize
from equivalence.oracle_changes import Changes, delta
from unipetl import Bottleneck, HeadAttention, LowRank, Method, Modification, Prompt, Rescale


@pytest.mark.parametrize("padding", ["none", "right"])
@pytest.mark.parametrize("family", [*ORACLE_FAMILIES, "mistral"])
def test_the_bare_oracle_is_the_transformers_model(family: str, padding: str) -> None:
    one = case(family, padding)
    want, got = one.oracle(), one.run()
    assert set(want) == set(got)
    for name in want:
        torch.testing.assert_close(got[name], want[name], **EXACT)


def at(place: str, form: object, insertion: object = "sequential", composition: object = "add") -> Method:
    one = Modification(representation=place, form=form, insertion=insertion, composition=composition)
    return Method(modifications=(one,))


BOTTLENECKS = [
    *(Bottleneck(rank=3, activation=name) for name in ("relu", "gelu", "gelu_tanh", "silu", "tanh", "identity")),
    Bottleneck(rank=3, bias=False),
    Bottleneck(rank=3, layer_norm="in"),
    Bottleneck(rank=3, layer_norm="out"),
    Bottleneck(rank=3, layer_norm="out", inner_scale=0.3),
    Bottleneck(rank=3, layer_norm="out", inner_scale="learned"),
    Bottleneck(rank=3, layer_norm="in", bias=False, activation="silu"),
    Bottleneck(rank=3, gated=True, activation="silu"),
    Bottleneck(rank=3, gated=True, bias=False, layer_norm="in"),
]


@pytest.mark.parametrize("form", BOTTLENECKS, ids=str)
@pytest.mark.parametrize("family", ["roberta", "mbart", "llama"])
def test_every_bottleneck_is_its_equation(family: str, form: Bottleneck) -> None:
    compare(case(family), at("ffn", form, "parallel"))


def test_the_bottlenecks_differ_from_each_other() -> None:
    """The forms above are told apart by the oracle: none of its settings is idle."""
    generator = torch.Generator().manual_seed(1)
    draw = lambda *shape: torch.randn(shape, generator=generator, dtype=torch.float64)  # noqa: E731
    tensors = {
        "down": draw(3, 8), "up": draw(8, 3), "down_bias": draw(3), "up_bias": draw(8), "inner_scale": draw(1),
        "gate": draw(3, 8), "gate_bias": draw(3),
        "layer_norm.weight": draw(8), "layer_norm.bias": draw(8),
    }  # fmt: skip
    x = draw(4, 8)
    results = [delta(form, tensors, x) for form in BOTTLENECKS]
    for i, first in enumerate(results):
        assert all((first - second).abs().max() > 1e-6 for second in results[:i])


@pytest.mark.parametrize("rank", [1, 5, 40])
@pytest.mark.parametrize("family", ["roberta", "bart", "t5_gated", "gpt2"])
def test_a_low_rank_map_is_its_equation_at_any_rank(family: str, rank: int) -> None:
    compare(case(family), at("attention.query", LowRank(rank=rank), "parallel", {"add": {"scale": 2.5}}))


HEADS = {
    "prefix": (HeadAttention(length=4), "gate"),
    "ungated": (HeadAttention(length=4), {"add": {"scale": 0.7}}),
    "ungated, learned scale": (HeadAttention(length=4), {"add": {"scale": "learned"}}),
    "relu": (HeadAttention(length=4, activation="relu"), {"add": {"scale": 2}}),
    "relu, unscaled query": (HeadAttention(length=4, activation="relu", scale_query=False), "add"),
    "gated, normed query": (HeadAttention(length=4, layer_norm="in"), "gate"),
    "relu, normed query": (HeadAttention(length=4, activation="relu", layer_norm="in"), "add"),
    "one key": (HeadAttention(length=1), "gate"),
}


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("family", ORACLE_FAMILIES)
def test_learned_keys_and_values_are_their_equation(family: str, name: str) -> None:
    form, composition = HEADS[name]  # a query of a change's own is W_q LN(x): it carries no rotary position
    compare(case(family), at("attention.heads", form, "parallel", composition))


@pytest.mark.parametrize("composition", ["gate", "add"])
@pytest.mark.parametrize("family", ORACLE_FAMILIES)
def test_reparametrised_keys_and_values_are_the_mlps_result(family: str, composition: str) -> None:
    config = case(family).model.config
    widths = {"t5": 24, "t5_gated": 24, "llama": 8}  # heads * d_kv; two key heads of four
    form = HeadAttention(length=3, reparametrization={"width": 7})
    method = at("attention.heads", form, "parallel", composition)
    compare(case(family), method, key_width=widths.get(family, getattr(config, "hidden_size", 16)))


@pytest.mark.parametrize("place", ["attention.key", "attention.value", "attention.heads", "ffn.hidden", "ffn", "block"])
@pytest.mark.parametrize("family", ORACLE_FAMILIES)
def test_factors_multiply(family: str, place: str) -> None:
    compare(case(family), at(place, Rescale(), "sequential", "multiply"))


@pytest.mark.parametrize("padding", ["none", "right"])
@pytest.mark.parametrize("length", [1, 5])
@pytest.mark.parametrize("family", ["bart", "mbart", "t5", "t5_gated"])
def test_a_prompt_stands_in_front_of_the_encoders_tokens(family: str, length: int, padding: str) -> None:
    compare(case(family, padding), at("input", Prompt(length=length), "parallel", "gate"))


@pytest.mark.parametrize("padding", ["none", "right"])
@pytest.mark.parametrize("family", ["roberta", "gpt2", "llama"])
def test_a_prompts_own_results_are_taken_away(family: str, padding: str) -> None:
    """The oracle keeps the l rows that the prompt adds; the model's user sees the n of the tokens."""
    one = case(family, padding)
    attachment = unipetl.attach(one.model, at("input", Prompt(length=4), "parallel", "gate"))
    try:
        randomize(attachment.tensors())
        ((name, got),) = one.run().items()
        want = one.oracle(Changes(attachment.method, attachment.tensors()))[name]
    finally:
        attachment.detach()
    assert want.shape[1] == got.shape[1] + 4
    torch.testing.assert_close(one.real(name, got), one.real(name, want[:, 4:]), **CLOSE)
    assert (got - one.run()[name]).abs().max() > 1e-3
