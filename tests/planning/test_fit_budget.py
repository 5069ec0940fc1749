"""Budgets: no other size comes closer, proportions are kept, and what cannot be met is refused with what can."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import unipetl
from unipetl.budget import Budget, fit_budget
from unipetl.errors import MethodError, PlanError
from unipetl.models import resolve_config, skeleton
from unipetl.sizes import resized, sizes
from unipetl.testing.models import build

ROBERTA = skeleton(resolve_config("roberta-base"))
BART = build("bart")


def added(method):
    return unipetl.plan(method, BART).added_parameters


@pytest.mark.parametrize("budget", [1_000, 4_793, 14_000])
@pytest.mark.parametrize(
    "method",
    [
        "lora",
        "adapter(rank=4)",
        "mam(length=3, rank=7, mlp=none)",
        "mam(length=4, rank=?, mlp=none)",
        "prefix_tuning(mlp=none) + lora(at=ffn)",
        "prompt_tuning",
    ],
)
def test_no_other_size_comes_closer(method, budget):
    found = fit_budget(method, BART, budget, tolerance=1.0)
    assert found.parameters == found.plan.added_parameters == added(found.method)
    assert unipetl.parse(found.notation) == found.method
    size = next(size for size in range(1, 4_000) if unipetl.parse(resized(method, size)) == found.method)
    around = [added(resized(method, other)) for other in range(max(1, size - 3), size + 4)]
    assert around == sorted(around)
    assert abs(found.parameters - budget) == min(abs(count - budget) for count in around)


@given(largest=st.integers(1, 5000))
def test_sizes_keep_their_proportion(largest):
    length, rank = sizes(resized("mam(length=30, rank=512)", largest))
    assert rank == largest
    assert length == max(1, round(30 * largest / 512))


@pytest.mark.parametrize(
    ("method", "before", "after"),
    [
        ("lora", (16,), "lora(rank=4)"),
        ("mam(mlp=none)", (30, 512), "mam(mlp=none, length=1, rank=4)"),
        ("mam(length=9, rank=?)", (1,), "mam(length=9, rank=4)"),
        ("lora(rank=8, at=['ffn.up', 'ffn.down'])", (8,), "lora(rank=4, at=['ffn.up', 'ffn.down'])"),
        ("prefix_tuning(length=2) + lora(rank=8)", (2, 8), "prefix_tuning(length=1) + lora(rank=4)"),
        ("bitfit", (), "bitfit()"),
    ],
)
def test_text_stays_text(method, before, after):
    assert sizes(method) == before
    assert resized(method, 4) == after
    unipetl.parse(after)


@pytest.mark.parametrize("name", [entry.name for entry in unipetl.catalogue.ENTRIES])
def test_a_method_and_its_text_have_the_same_size(name):
    text, method = resized(name, 3), resized(unipetl.parse(name), 3)
    assert unipetl.parse(text) == method


def test_a_written_out_method_is_resized_too():
    method = unipetl.parse("lora(rank=8, at=ffn)")
    assert fit_budget(method, BART, 3_000).method == fit_budget("lora(at=ffn)", BART, 3_000).method
    assert fit_budget(method.to_yaml(), BART, 3_000).method == fit_budget("lora(at=ffn)", BART, 3_000).method


def test_the_papers_half_percent_by_the_papers_rule():
    for text, expected in {
        "lora": "lora(rank=17)", "prefix_tuning": "prefix_tuning(length=34)", "mam(length=16, rank=16)": None,
    }.items():  # fmt: skip
        found = fit_budget(text, ROBERTA, "0.5%", rule="paper")
        assert found.plan.paper_share == pytest.approx(0.005, rel=0.03)
        assert expected in (None, found.notation)


@pytest.mark.parametrize(
    ("text", "parameters"),
    [("0.5%", 620_275), ("200k", 200_000), ("1.5M", 1_500_000), ("20_000", 20_000), ("20,000", 20_000), (777, 777)],
)
def test_budgets_are_read(text, parameters):
    assert Budget.read(text).parameters(ROBERTA) == parameters


@pytest.mark.parametrize("text", ["", "x", "0%", "-1k", "0.5 %%", "1e5", "nan", "1,5%", True])
def test_what_is_no_budget_is_refused(text):
    with pytest.raises(MethodError, match=r"expected a share such as 0.5% or a number such as 200k"):
        Budget.read(text)


def test_a_budget_that_cannot_be_met_names_the_nearest():
    with pytest.raises(PlanError, match=r"nearest: 36,864 \(0.030%\) with lora\(rank=1\)"):
        fit_budget("lora", ROBERTA, 100)
    with pytest.raises(PlanError, match=r"Its reparametrising MLP alone has 15,380,000: mlp=none"):
        fit_budget("mam", ROBERTA, "0.5%")
    with pytest.raises(PlanError, match=r"'bitfit' has no size to solve for; it always trains 102,144 parameters"):
        fit_budget("bitfit", ROBERTA, "0.5%")
    with pytest.raises(PlanError, match="no size of"):
        fit_budget("prompt_tuning", ROBERTA, "50%", largest=64)
