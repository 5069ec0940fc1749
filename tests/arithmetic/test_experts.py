"""The laws of arithmetic inside mixtures of experts: each expert's changes add up, stack and merge by themselves."""

from __future__ import annotations

import pytest
import torch

import unipetl
from arithmetic.by_hand import alone, multiplied
from equivalence.test_expert_oracles import KINDS, PLACES, call_of, model_of
from unipetl import arithmetic
from unipetl.arithmetic import expertwise
from unipetl.errors import CheckError, CombinationError
from unipetl.testing.compare import close, differ, outputs, same, scatter

LORA = {"low_rank": {"rank": 2}}
EVERY = pytest.mark.parametrize("kind", KINDS)


def changes(form, *, experts=True, names=PLACES, insertion="parallel", composition=None):
    """A method that changes places of experts; a form may be of another rank than that of another method."""
    return unipetl.Method(
        modifications=[
            {
                "representation": {"name": name, "experts": experts},
                "form": form,
                "insertion": insertion,
                "composition": composition or {"add": {"scale": 2}},
            }
            for name in names
        ]
    )


def bottleneck(**settings):
    return changes({"bottleneck": {"rank": 2, **settings}}, names=("ffn.hidden", "ffn.down"))


SUMS = {
    "low rank": (changes(LORA), changes({"low_rank": {"rank": 3}}, composition={"add": {"scale": 0.5}})),
    "learned scales": (changes(LORA, composition={"add": {"scale": "learned"}}), changes(LORA)),
    "other experts": (changes(LORA, experts=(0, 2)), changes(LORA, experts=(1, 2, 3))),
    "the same experts": (changes(LORA, experts=(3, 1)), changes(LORA, experts=(1, 3))),
    "bottlenecks": (bottleneck(), bottleneck(activation="tanh")),
    "wide and narrow": (bottleneck(rank=3), bottleneck(bias=False)),
    "input norms": (bottleneck(layer_norm="in"), bottleneck(layer_norm="in", rank=1)),
    "output norms": (bottleneck(layer_norm="out"), bottleneck(layer_norm="out")),
    "everywhere": (unipetl.parse("lora(rank=2, at=all)"), unipetl.parse("lora(rank=1, at=ffn)")),
}
FACTORS = changes("rescale", insertion="sequential", composition="multiply", names=("ffn.hidden",))


def both(kind, first, second):
    model = model_of(kind)
    for place, method in enumerate((first, second)):
        scatter(unipetl.attach(model, method, name="ab"[place], train_head=False), seed=place)
    return model, call_of()


def terms(model, names="ab"):
    return [arithmetic.term(model, name) for name in names]


@EVERY
@pytest.mark.parametrize("name", SUMS)
def test_a_weighted_sum_is_the_stack_of_multiples(kind, name):
    model, call = both(kind, *SUMS[name])
    found = arithmetic.weighted_sum(terms(model), [-0.3, 1.7])
    multiplied(model, "a", -0.3)
    multiplied(model, "b", 1.7)
    wanted = outputs(model, call)
    bare = alone(model, found)
    close(outputs(bare, call), wanted, "the sum", 1e-6)
    unipetl.activate(bare, None)
    differ(outputs(bare, call), wanted, "the bare model", 1e-3)
    assert found.exact


@EVERY
@pytest.mark.parametrize("name", [name for name in SUMS if name != "learned scales"])
def test_a_concatenation_is_the_stack(kind, name):
    model, call = both(kind, *SUMS[name])
    found = alone(model, arithmetic.concatenate(terms(model)))
    close(outputs(found, call), outputs(model, call), "the stack", 1e-6)


@EVERY
def test_factors_of_experts_multiply_in_a_stack_and_add_up_in_a_sum(kind):
    model, call = both(kind, FACTORS, FACTORS)
    a, b = terms(model)
    close(outputs(alone(model, arithmetic.concatenate([a, b])), call), outputs(model, call), "the stack", 1e-6)
    total = arithmetic.weighted_sum([a, b], [0.5, -2])
    for part, one, two in zip(total.parts, a.parts, b.parts, strict=True):
        assert len(part.places) == 2 * 4
        for place, values in part.places.items():
            wanted = 1 + 0.5 * (one.places[place]["factor"] - 1) - 2 * (two.places[place]["factor"] - 1)
            close(values["factor"], wanted, place)


@EVERY
@pytest.mark.parametrize(
    "method",
    [changes(LORA), changes(LORA, experts=(1, 2)), bottleneck(), FACTORS],
    ids=["low rank", "two experts", "bottleneck", "factors"],
)
def test_a_term_is_its_attachment_and_its_opposite_undoes_it(kind, method, tmp_path):
    model, call = model_of(kind), call_of()
    bare = outputs(model, call)
    one = scatter(unipetl.attach(model, method))
    a = arithmetic.term(one)
    same(outputs(alone(model, a), call), outputs(model, call), "the term itself")
    unipetl.save(model, tmp_path)
    saved = arithmetic.term(tmp_path)
    assert a.tensors().keys() == saved.tensors().keys() == one.tensors().keys()
    assert all(torch.equal(value, saved.tensors()[name]) for name, value in a.tensors().items())
    nothing = arithmetic.weighted_sum([a, arithmetic.negate(saved)], [1, 1])
    close(outputs(alone(model, nothing), call), bare, "a - a", 1e-6)
    close(outputs(alone(model, arithmetic.average([a, saved])), call), outputs(model, call), "the mean", 1e-6)


def test_what_reads_what_another_leaves_is_refused_at_one_expert_and_exact_at_others():
    first = changes(LORA, experts=(0, 1), names=("ffn.down",))
    later = {
        number: changes({"bottleneck": {"rank": 2}}, experts=number, names=("ffn.down",), insertion="sequential")
        for number in ((1, 2), (2, 3))
    }
    model, call = both("Mixtral", first, later[2, 3])
    found = arithmetic.concatenate(terms(model))
    close(outputs(alone(model, found), call), outputs(model, call), "the stack", 1e-6)
    model, _ = both("Mixtral", first, later[1, 2])
    with pytest.raises(CombinationError, match=r"reads what .* of an earlier attachment leaves"):
        arithmetic.concatenate(terms(model))


def dense(one):
    return {
        place: part.modification.composition.scale * values["up"] @ values["down"]
        for part in one.parts
        for place, values in part.places.items()
    }


def test_approximations_are_made_expert_by_expert_and_say_each_error():
    model, call = both("Mixtral", changes(LORA), changes({"low_rank": {"rank": 3}}))
    a, b = terms(model)
    total = arithmetic.weighted_sum([a, b], [1, 1])
    small = arithmetic.reduce_rank(total, 2)
    before, after = dense(total), dense(small)
    assert len(before) == 2 * len(PLACES) * 4, "layers, places, experts"
    for place, matrix in before.items():
        u, values, v = torch.linalg.svd(matrix)
        close(after[place], u[:, :2] * values[:2] @ v[:2], place)
        reported = next(value for name, value in small.errors.items() if name.startswith(f"{place} low_rank"))
        assert reported == pytest.approx(float((after[place] - matrix).norm() / matrix.norm()), abs=1e-9)
    close(outputs(alone(model, arithmetic.reduce_rank(total, 5)), call), outputs(model, call), "at the full rank", 1e-6)
    for place, matrix in dense(arithmetic.dare([a, b], density=1.0)).items():
        close(matrix, dense(arithmetic.average([a, b]))[place], place)
    for place, matrix in dense(arithmetic.ties([a], density=1.0)).items():
        close(matrix, dense(a)[place], place)


def test_what_dare_drops_is_drawn_for_every_expert():
    model = model_of("Mixtral")
    a = arithmetic.term(scatter(unipetl.attach(model, FACTORS)))
    dropped = arithmetic.dare([a], density=0.5)
    first, second = [one["factor"] == 1 for one in dropped.parts[0].places.values()][:2]
    assert first.any()
    assert not torch.equal(first, second)


def test_values_of_another_number_of_experts_are_refused(tmp_path):
    model = model_of("Mixtral")
    unipetl.attach(model, changes(LORA, experts=(0, 1)))
    a = arithmetic.term(model)
    more = model_of("Mixtral", num_local_experts=2, num_experts=2)
    arithmetic.put(more, a)
    unipetl.detach(more, "default")
    wide = model_of("Mixtral")
    unipetl.attach(wide, changes(LORA))
    with pytest.raises(CombinationError, match="does not fit this Mixtral"):
        arithmetic.put(more, arithmetic.term(wide))
    values = {"site": {"each.up": torch.zeros(3, 4, 2), "each.down": torch.zeros(3, 2, 4)}}
    with pytest.raises(CombinationError, match="2 experts, and its values are of 3"):
        expertwise.one_by_one(a.parts[0].modification, values)


@pytest.mark.parametrize(
    "fault",
    [
        lambda experts, name: torch.stack([one[name] for one in reversed(experts)]),
        lambda experts, name: torch.stack([experts[0][name]] * len(experts)),
    ],
)
def test_planted_mixed_up_experts(monkeypatch, fault):
    monkeypatch.setattr(expertwise, "_stacked", fault)
    with pytest.raises(CheckError):
        test_a_weighted_sum_is_the_stack_of_multiples("Mixtral", "low rank")
