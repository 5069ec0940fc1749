"""How changes join h, and each other: scales, factors, the gate, mixes of methods, stacks of attachments."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import unipetl
from equivalence.checks import CLOSE, ORACLE_FAMILIES, case, compare, randomize
from equivalence.oracle_changes import Changes
from unipetl import Bottleneck, HeadAttention, LowRank, Method, Modification, Rescale
from unipetl.representation import NAMES

TANH = Bottleneck(rank=3, activation="tanh")


def at(place: str, form: Any, insertion: Any = "parallel", composition: Any = "add") -> Modification:
    return Modification(representation=place, form=form, insertion=insertion, composition=composition)


@pytest.mark.parametrize("scale", [4.0, -0.5, "learned"])
@pytest.mark.parametrize("place", ["attention", "ffn.residual"])
@pytest.mark.parametrize("family", ORACLE_FAMILIES)
def test_the_change_is_scaled(family: str, place: str, scale: float | str) -> None:
    compare(case(family), Method(modifications=(at(place, TANH, "sequential", {"add": {"scale": scale}}),)))


@pytest.mark.parametrize("family", ORACLE_FAMILIES)
def test_a_learned_scale_has_one_value_per_place(family: str) -> None:
    plan = unipetl.plan("scaled_parallel_adapter(rank=2, scale=learned)", case(family).model)
    width = 16
    assert {one.parameters for one in plan.placements} == {2 * 2 * width + 2 + width + 1}


@pytest.mark.parametrize("family", ORACLE_FAMILIES)
def test_a_factor_and_an_addend_read_the_same_h(family: str) -> None:
    compare(
        case(family),
        Method(
            modifications=(
                at("ffn.hidden", Rescale(), "sequential", "multiply"),
                at("ffn.hidden", TANH, "sequential"),
                at("ffn.hidden", LowRank(rank=2), "parallel"),
            )
        ),
    )


@pytest.mark.parametrize("family", ORACLE_FAMILIES)
def test_a_gated_and_an_added_attention_share_the_heads(family: str) -> None:
    compare(
        case(family),
        Method(modifications=(at("attention.heads", HeadAttention(length=3), composition="gate"),))
        + Method(modifications=(at("attention.heads", TANH, "sequential"), at("attention.heads", TANH, "parallel"))),
    )


def everywhere(family: str) -> Method:
    left_out = {"input", "embedding", *(() if family in ("t5_gated", "llama") else ("ffn.gate",))}
    places = [name for name in NAMES if name not in left_out]
    sequential = [at(name, TANH, "sequential", {"add": {"scale": 0.3}}) for name in places]
    parallel = [at(name, LowRank(rank=2), "parallel", {"add": {"scale": 0.3}}) for name in places]
    factors = [at(name, Rescale(), "sequential", "multiply") for name in places]
    prefix = at("attention.heads", HeadAttention(length=2), composition="gate")
    reading_x = [one for one in parallel if one.representation.name != "ffn.residual"]
    return Method(modifications=(*sequential, *reading_x, *factors, prefix))


@pytest.mark.parametrize("family", ORACLE_FAMILIES)
def test_changes_at_every_place_at_once_see_each_other_in_the_order_of_the_computation(family: str) -> None:
    compare(case(family), everywhere(family))


def test_the_order_in_which_a_method_is_written_does_not_matter() -> None:
    method = everywhere("bart")
    backwards = Method(modifications=tuple(reversed(method.modifications)))
    results = []
    for one in (method, backwards):
        attachment = unipetl.attach(case("bart").model, one)
        randomize(attachment.tensors())
        results.append(case("bart").run()["decoder"])
        attachment.detach()
    assert torch.equal(*results)


@pytest.mark.parametrize(
    "text",
    [
        "mam(length=3, rank=4, mlp=none)",
        "mam(length=3, rank=4, scale=learned, mlp=none, variant=official)",
        "houlsby(rank=3, variant=official)",
        "lora(at=all, rank=2) + ia3()",
        "prefix_tuning(length=2, mlp=none) + lora(at=ffn, rank=3)",
        "multi_head_parallel_adapter(rank=3) + prompt_tuning(length=3)",
    ],
)
@pytest.mark.parametrize("family", ["bart", "mbart", "t5_gated"])
def test_mixes_of_named_methods(family: str, text: str) -> None:
    compare(case(family), text)


class Chain:
    """Several attachments in the order of stacking: at each place the next one sees what the last one made."""

    def __init__(self, *links: Changes) -> None:
        self.links = links

    def __call__(self, place: str, h: Tensor, **seen: Any) -> Tensor:
        for link in self.links:
            h = link(place, h, **seen)
        return h

    def heads(self, place: str, own: Tensor, **seen: Any) -> Tensor:
        return self.links[0].heads(place, own, **seen)

    def prompt(self, place: str) -> Tensor | None:
        return self.links[0].prompt(place)


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("first", ["adapter(rank=3, at=both)", "parallel_adapter(rank=3, at=both)"])
@pytest.mark.parametrize("family", ORACLE_FAMILIES)
def test_stacked_attachments_see_each_other_in_the_order_of_stacking(family: str, first: str, backwards: bool) -> None:
    one = case(family)
    texts = {"first": f"prefix_tuning(length=2, mlp=none) + {first}", "second": "adapter(rank=2)"}
    bare = one.run()
    changes = {}
    try:
        for number, (name, text) in enumerate(texts.items()):
            attachment = unipetl.attach(one.model, text, name=name)
            randomize(attachment.tensors(), seed=number)
            changes[name] = Changes(attachment.method, attachment.tensors())
        order = ["second", "first"] if backwards else ["first", "second"]
        unipetl.activate(one.model, order)
        got = one.run()
        chain = Chain(*(changes[name] for name in order))
        chain.heads = changes["first"].heads  # type: ignore[method-assign]
        want = one.oracle(chain)  # type: ignore[arg-type]
        unipetl.activate(one.model, order[::-1])
        other = one.run()
        unipetl.activate(one.model, None)
        without = one.run()
    finally:
        for name in list(changes):
            unipetl.detach(one.model, name)
    for name in bare:
        torch.testing.assert_close(one.real(name, got[name]), one.real(name, want[name]), **CLOSE)
        assert torch.equal(without[name], bare[name])
    last = next(reversed(bare))
    assert (got[last] - other[last]).abs().max() > 1e-6, "the order of stacking should matter here"


def test_the_gate_is_strictly_between_the_two_averages() -> None:
    """With learned scores far above or far below the model's own, h becomes dh or stays h (equation 7)."""
    one = case("roberta", "none")
    bare = one.run()["encoder"]
    attachment = unipetl.attach(one.model, "prefix_tuning(length=1, mlp=none)")
    try:
        tensors = attachment.tensors()
        for name, tensor in tensors.items():
            tensor.data.fill_(0.0 if name.endswith("key") else 0.5)
        with torch.no_grad():
            between = one.run()["encoder"]
        assert (between - bare).abs().max() > 1e-3
        captured = []
        output = one.model.encoder.layer[0].attention.output.dense
        handle = output.register_forward_pre_hook(lambda module, args: captured.append(args[0]))
        query = one.model.encoder.layer[0].attention.self.query
        for factor in (-1e4, 1e4):  # a key along the queries' mean direction: all scores have one sign
            query.bias.data.add_(100.0)
            tensors["encoder.0.self_attention.heads/parallel_head_attention/key"].data.fill_(factor)
            one.run()
            query.bias.data.sub_(100.0)
        handle.remove()
        assert not torch.isclose(captured[0], torch.full_like(captured[0], 0.5)).any()
        torch.testing.assert_close(captured[1], torch.full_like(captured[1], 0.5))
    finally:
        attachment.detach()
        case.cache_clear()
