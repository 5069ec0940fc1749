"""Merges that are approximations: their definition by hand, and the error they report."""

from __future__ import annotations

import pytest
import torch

import unipetl
from laws.support import family_named, fresh
from unipetl import arithmetic
from unipetl.arithmetic import approximate
from unipetl.errors import CombinationError
from unipetl.testing import batch
from unipetl.testing.compare import close, outputs, scatter

FAMILY = "bart"


def terms(*methods):
    model = fresh(family_named(FAMILY))
    made = []
    for place, method in enumerate(methods):
        one = scatter(unipetl.attach(model, method, name=str(place), train_head=False), seed=place)
        made.append(arithmetic.term(one))
    return made


def matrices(term):
    """Place -> ΔW of every low-rank change."""
    found = {}
    for part in term.parts:
        scale = part.modification.composition.scale
        for place, values in part.places.items():
            found[place] = scale * values["up"] @ values["down"]
    return found


@pytest.mark.parametrize("rank", [1, 2, 5, 9])
def test_the_nearest_matrix_of_a_rank_and_its_error(rank):
    (a,) = terms("lora(rank=5, scale=3)")
    found = arithmetic.reduce_rank(a, rank)
    before, after = matrices(a), matrices(found)
    for place, dense in before.items():
        u, values, v = torch.linalg.svd(dense)
        size = min(rank, 5)
        close(after[place], u[:, :size] * values[:size] @ v[:size], place)
        error = float((after[place] - dense).norm() / dense.norm())
        reported = next(value for name, value in found.errors.items() if name.startswith(f"{place} "))
        assert reported == pytest.approx(error, abs=1e-9)
    assert (max(found.errors.values()) < 1e-9) is (rank >= 5)
    assert not found.exact


def test_a_sum_of_attachments_brought_back_to_a_rank():
    a, b = terms("lora(rank=2)", "lora(rank=3)")
    total = arithmetic.weighted_sum([a, b], [0.5, 0.5])
    assert total.method.modifications[0].form.rank == 5
    small = arithmetic.reduce_rank(total, 2)
    assert small.method.modifications[0].form.rank == 2
    model = fresh(family_named(FAMILY))
    arithmetic.put(model, small)
    assert outputs(model, batch(model)).isfinite().all()


def test_ties_by_hand():
    merge = {}

    def keep(values, name):
        merge[name] = values
        return values[0]

    a, b, c = (torch.tensor(one) for one in ([3.0, -1.0, 0.1, 2.0], [1.0, 4.0, -0.2, -6.0], [2.0, 1.0, 5.0, 0.0]))
    trimmed = [[3.0, 0, 0, 2.0], [0, 4.0, 0, -6.0], [2.0, 0, 5.0, 0]]  # half of the values of each
    wanted = torch.tensor([2.5, 4.0, 5.0, -6.0])  # signs + + + -, means of those that agree
    for value, hand in zip((a, b, c), trimmed, strict=True):
        assert torch.equal(approximate._trimmed(value, 0.5), torch.tensor(hand))
    found = _vector_merge([a, b, c], lambda made: arithmetic.ties(made, density=0.5))
    close(found, wanted, "TIES")
    assert keep([a], "x") is a


def _vector_merge(values, merge):
    """Merge vectors as (IA)^3 factors of a model's one place."""
    from unipetl.arithmetic import Part, Term

    one = unipetl.Modification(
        representation="attention.key", form="rescale", insertion="sequential", composition="multiply"
    )
    made = [Term((Part(one, {"decoder.0.self_attention.key": {"factor": 1 + value}}),)) for value in values]
    return merge(made).parts[0].places["decoder.0.self_attention.key"]["factor"] - 1


@pytest.mark.parametrize("merge", [arithmetic.ties, arithmetic.dare])
def test_all_values_of_one_attachment_are_it(merge):
    (a,) = terms("lora(rank=2, at=all, scale=0.5)")
    found = merge([a], density=1.0)
    for place, dense in matrices(found).items():
        close(dense, matrices(a)[place], place)
    assert max(found.errors.values()) < 1e-9


def test_dare_of_everything_is_the_average():
    a, b = terms("lora(rank=2)", "lora(rank=3)")
    found, wanted = matrices(arithmetic.dare([a, b], density=1.0)), matrices(arithmetic.average([a, b]))
    for place, dense in found.items():
        close(dense, wanted[place], place)


def test_dare_keeps_the_mean_and_depends_on_its_seed_alone():
    value = torch.linspace(-1, 2, 50, dtype=torch.float64)
    draws = [
        _vector_merge([value], lambda made, s=seed: arithmetic.dare(made, density=0.3, seed=s)) for seed in range(3000)
    ]
    assert torch.equal(draws[0], _vector_merge([value], lambda made: arithmetic.dare(made, density=0.3, seed=0)))
    assert not torch.equal(draws[0], draws[1])
    spread = value.abs() * (0.7 / 0.3) ** 0.5 / 3000**0.5
    assert ((torch.stack(draws).mean(0) - value).abs() < 5 * spread + 1e-12).all()


@pytest.mark.parametrize("merge", [arithmetic.ties, arithmetic.dare])
def test_a_truncated_merge_reports_the_error_it_makes(merge):
    made = terms("lora(rank=2)", "lora(rank=3)")
    whole, small = merge(made, rank=16), merge(made, rank=2)
    assert max(whole.errors.values()) < 1e-9
    for place, dense in matrices(whole).items():
        reported = next(value for name, value in small.errors.items() if name.startswith(f"{place} "))
        error = float((matrices(small)[place] - dense).norm() / dense.norm())
        assert reported == pytest.approx(error, abs=1e-9)
        assert error > 0.01
    assert "density" in whole.law


def test_parameters_of_the_model_are_merged_as_changes():
    model = fresh(family_named("bert"))
    base = {name: value.clone() for name, value in model.named_parameters()}
    made = []
    for place in range(2):
        one = unipetl.attach(model, "bitfit", name=str(place))
        with torch.no_grad():
            for value in one.tensors().values():
                value.add_(torch.randn_like(value))
        made.append(arithmetic.term(one))
        unipetl.activate(model, None)
    found = arithmetic.ties(made, density=1.0)
    name = "bert.embeddings.LayerNorm.bias"
    changes = torch.stack([one.own[name] - base[name] for one in made])
    agree = torch.sign(changes) == torch.sign(changes.sum(0))
    close(found.own[name], base[name] + (changes * agree).sum(0) / agree.sum(0), "TIES of biases")


@pytest.mark.parametrize(
    ("call", "why"),
    [
        (lambda: arithmetic.ties(terms("parallel_adapter(rank=2)", "parallel_adapter(rank=2)")), "have no order"),
        (lambda: arithmetic.ties(terms("lora(rank=2)", "ia3")), "not every attachment"),
        (lambda: arithmetic.ties(terms("lora(rank=2)"), density=0.0), "density"),
        (lambda: arithmetic.dare(terms("lora(rank=2)"), density=1.5), "density"),
        (lambda: arithmetic.ties(terms("lora(rank=2)"), [1, 2]), "one weight"),
        (lambda: arithmetic.reduce_rank(terms("lora(rank=2)")[0], 0), "at least 1"),
    ],
)
def test_wrong_uses_are_refused(call, why):
    with pytest.raises(CombinationError, match=why):
        call()


def test_a_planted_wrong_error_is_noticed(monkeypatch):
    real = approximate._factored
    monkeypatch.setattr(approximate, "_factored", lambda *arguments: (*real(*arguments)[:2], 0.0))
    with pytest.raises(AssertionError):
        test_the_nearest_matrix_of_a_rank_and_its_error(2)
