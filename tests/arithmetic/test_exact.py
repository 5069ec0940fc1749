"""The exact laws of arithmetic, in float64, in every family: sums are sums, stacks are stacks, opposites cancel."""

from __future__ import annotations

import pytest
import torch

import unipetl
from arithmetic.by_hand import alone, multiplied
from laws.support import family_named, fresh, refused, tolerance
from unipetl import arithmetic
from unipetl.arithmetic import joining
from unipetl.errors import CheckError, CombinationError
from unipetl.testing import FAMILIES, batch
from unipetl.testing.compare import close, outputs, same, scatter

SUMS = {
    "low rank": ("lora(rank=2, at=all, scale=0.5)", "lora(rank=3, at=all)"),
    "learned scales": ("lora(rank=2, scale=learned)", "lora(rank=1, scale=2)"),
    "bottlenecks": ("parallel_adapter(rank=2, scale=0.7)", "parallel_adapter(rank=3)"),
    "gated": ("parallel_adapter(rank=2, activation=model)", "parallel_adapter(rank=2, activation=model, scale=2)"),
    "input norms": (
        "parallel_adapter(rank=2, layer_norm='in')",
        "parallel_adapter(rank=2, layer_norm='in', scale=0.2)",
    ),
    "output norms": ("parallel_adapter(rank=2, layer_norm=out)", "parallel_adapter(rank=2, layer_norm=out)"),
    "heads": ("multi_head_parallel_adapter(rank=2)", "multi_head_parallel_adapter(rank=4, scale=0.5)"),
    "heads of their own query": (
        "multi_head_parallel_adapter(rank=2, variant=official)",
        "multi_head_parallel_adapter(rank=2, variant=official)",
    ),
    "ungated prefixes": ("ungated_prefix(length=2, mlp=None)", "ungated_prefix(length=2, mlp=None)"),
    "unlike": ("lora(rank=2)", "scaled_parallel_adapter(rank=2) + lora(rank=1, at=ffn)"),
}
STACKS = {
    **{name: pair for name, pair in SUMS.items() if name != "learned scales"},
    "ungated prefixes": ("ungated_prefix(length=2, mlp=3)", "ungated_prefix(length=2, mlp=None)"),
    "prefixes": ("prefix_tuning(length=2, mlp=None)", "prefix_tuning(length=3, mlp=4)"),
    "prompts": ("prompt_tuning(length=2)", "prompt_tuning(length=3)"),
    "factors": ("ia3", "ia3"),
    "mixtures": ("mam(length=2, rank=2, mlp=None)", "mam(length=3, rank=3, mlp=3) + ia3"),
}


EVERY_FAMILY = pytest.mark.parametrize(
    "family",
    [
        pytest.param(
            one, marks=() if one.name in ("roberta", "bart", "t5_gated", "gpt2", "llama") else pytest.mark.slow
        )
        for one in FAMILIES
    ],
    ids=str,
)


def both(family, first, second):
    """A model with two attachments, and a call; skips what the family has no place for."""
    model = fresh(family)
    for place, method in enumerate((first, second)):
        if refused(model, method):
            pytest.skip("the family has no such places")
        scatter(unipetl.attach(model, method, name="ab"[place], train_head=False), seed=place)
    return model, batch(model)


@EVERY_FAMILY
@pytest.mark.parametrize("name", SUMS)
def test_a_weighted_sum_is_the_stack_of_multiples_where_changes_are_parallel(family, name):
    model, call = both(family, *SUMS[name])
    found = arithmetic.weighted_sum([arithmetic.term(model, "a"), arithmetic.term(model, "b")], [-0.3, 1.7])
    multiplied(model, "a", -0.3)
    multiplied(model, "b", 1.7)
    wanted = outputs(model, call)
    close(outputs(alone(model, found), call), wanted, "the sum", tolerance(family))
    assert found.exact


@EVERY_FAMILY
@pytest.mark.parametrize("name", STACKS)
def test_a_concatenation_is_the_stack(family, name):
    model, call = both(family, *STACKS[name])
    terms = [arithmetic.term(model, "a"), arithmetic.term(model, "b")]
    wanted = outputs(model, call)
    close(outputs(alone(model, arithmetic.concatenate(terms)), call), wanted, "the stack", tolerance(family))


@pytest.mark.parametrize("method", ["houlsby(rank=2)", "pfeiffer(rank=3)", "adapter(rank=2, layer_norm='in')", "ia3"])
def test_sequential_changes_add_up_reading_the_same_h(method):
    model = fresh(family_named("bart"))
    one = scatter(unipetl.attach(model, method))
    a = arithmetic.term(one)
    twice = arithmetic.weighted_sum([a, a], [0.25, 0.75])
    close(outputs(alone(model, twice), batch(model)), outputs(model, batch(model)), "a quarter and three")


@EVERY_FAMILY
@pytest.mark.parametrize(
    "method", ["lora(rank=2, at=all)", "houlsby(rank=2)", "ia3", "multi_head_parallel_adapter(rank=2)"]
)
def test_an_attachment_and_its_opposite_are_the_bare_model(family, method):
    model = fresh(family)
    bare = outputs(model, batch(model))
    a = arithmetic.term(scatter(unipetl.attach(model, method, train_head=False)))
    nothing = arithmetic.weighted_sum([a, arithmetic.negate(a)], [1, 1])
    close(outputs(alone(model, nothing), batch(model)), bare, "a - a", tolerance(family))
    twice = arithmetic.negate(arithmetic.negate(a))
    close(outputs(alone(model, twice), batch(model)), outputs(model, batch(model)), "- - a", tolerance(family))


@pytest.mark.parametrize(
    "method", ["lora(rank=2, at=all)", "parallel_adapter(rank=2, layer_norm=out)", "ia3", "bitfit"]
)
def test_an_average_of_one_with_itself_is_it(method):
    model = fresh(family_named("bert"))
    one = scatter(unipetl.attach(model, method))
    with torch.no_grad():
        for name, value in one.tensors().items():
            if name.startswith("model/"):
                value.add_(0.1)
    a = arithmetic.term(one)
    close(outputs(alone(model, arithmetic.average([a, a])), batch(model)), outputs(model, batch(model)), "the mean")
    same(outputs(alone(model, a), batch(model)), outputs(model, batch(model)), "the term itself")


def test_heads_and_biases_are_added_as_differences_from_the_base(tmp_path):
    model = fresh(family_named("bert"))
    base = {name: value.clone() for name, value in model.named_parameters()}
    terms = []
    for place in range(2):
        one = unipetl.attach(model, "bitfit", name=str(place))
        with torch.no_grad():
            for value in one.tensors().values():
                value.add_(torch.randn_like(value))
        terms.append(arithmetic.term(one))
        unipetl.save(model, tmp_path / str(place), name=str(place))
        unipetl.activate(model, None)
    for idle, term in zip(
        unipetl.attachments(model), terms, strict=True
    ):  # the same term, taken while it is not active
        again = arithmetic.term(model, idle.name)
        assert all(torch.equal(again.own[name], value) for name, value in term.own.items())
        assert all(torch.equal(again.originals[name], base[name]) for name in term.own)
    found = arithmetic.weighted_sum(terms, [2.0, -0.5])
    for name, value in found.own.items():
        wanted = base[name] + 2 * (terms[0].own[name] - base[name]) - 0.5 * (terms[1].own[name] - base[name])
        close(value, wanted, name)
    saved = [arithmetic.term(tmp_path / str(place)) for place in range(2)]
    mean = arithmetic.average(saved)
    close(
        mean.own["bert.embeddings.LayerNorm.bias"],
        sum(one.own["bert.embeddings.LayerNorm.bias"] for one in terms) / 2,
        "",
    )
    with pytest.raises(CombinationError, match="a saved attachment does not hold"):
        arithmetic.weighted_sum(saved, [1, 1])
    with pytest.raises(CombinationError, match="train 'bert"):
        arithmetic.concatenate(terms)


def test_a_saved_sum_is_an_attachment_like_any_other(tmp_path):
    model, call = both(family_named("bart"), "lora(rank=2)", "lora(rank=3)")
    for name in "ab":
        unipetl.save(model, tmp_path / name, name=name)
    total = arithmetic.weighted_sum([arithmetic.term(tmp_path / name) for name in "ab"], [1, 1])
    combined = alone(model, total)
    unipetl.save(combined, tmp_path / "sum")
    again = fresh(family_named("bart"))
    unipetl.load(again, tmp_path / "sum")
    close(outputs(again, call), outputs(model, call), "saved and loaded")
    assert "1 times the change" in total.law


@pytest.mark.parametrize(
    ("operation", "first", "second", "why"),
    [
        (
            "sum",
            "prefix_tuning(length=2, mlp=None)",
            "prefix_tuning(length=2, mlp=None)",
            "share one softmax|softmax with",
        ),
        ("sum", "prompt_tuning(length=2)", "lora(rank=2)", "no change of that kind"),
        ("concatenate", "houlsby(rank=2)", "adapter(rank=2)", "reads what .* of an earlier attachment leaves"),
        ("concatenate", "lora(rank=2)", "ia3", "reads what .* of an earlier attachment leaves"),
    ],
)
def test_what_no_law_covers_is_refused(operation, first, second, why):
    model, _ = both(family_named("bart"), first, second)
    terms = [arithmetic.term(model, "a"), arithmetic.term(model, "b")]
    with pytest.raises(CombinationError, match=why):
        arithmetic.concatenate(terms) if operation == "concatenate" else arithmetic.weighted_sum(terms, [0.5, 0.5])


def test_wrong_uses_are_refused(tmp_path):
    model, _ = both(family_named("bart"), "lora(rank=2)", "lora(rank=2)")
    a = arithmetic.term(model, "a")
    for call in (
        lambda: arithmetic.weighted_sum([a], []),
        lambda: arithmetic.average([]),
        lambda: arithmetic.concatenate([]),
    ):
        with pytest.raises(CombinationError, match="attachment"):
            call()
    small = fresh(family_named("bert"))
    with pytest.raises(CombinationError, match="does not fit this Bert"):
        arithmetic.put(small, a)
    assert unipetl.attachments(small) == ()
    narrow = unipetl.Method.from_plain(
        {
            "modifications": [
                {"representation": {"name": "attention.query", "layers": [0]}, "form": {"low_rank": {"rank": 1}}}
            ]
        }
    )
    part = arithmetic.term(unipetl.attach(fresh(family_named("bart")), narrow))
    both_ways = arithmetic.weighted_sum([a, part], [1, 1])  # other places: two modifications
    assert len(both_ways.method.modifications) == 3
    unipetl.attach(small, "prefix_tuning(length=2, mlp=3)")
    unipetl.save(small, tmp_path)
    with pytest.raises(CombinationError, match="load it and take the term from the model"):
        arithmetic.term(tmp_path)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("_bottlenecks", lambda values, forms: values[0]),
        ("_is_one", lambda factor: True),
        ("_without_norm", lambda values: values),
    ],
)
def test_planted_wrong_algebra(monkeypatch, name, fault):
    monkeypatch.setattr(joining, name, fault)
    with pytest.raises((CheckError, CombinationError)):
        test_a_weighted_sum_is_the_stack_of_multiples_where_changes_are_parallel(family_named("bert"), "input norms")
