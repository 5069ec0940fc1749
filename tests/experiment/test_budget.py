"""Sizes are solved so that methods train about the same number of parameters."""

from __future__ import annotations

import pytest
from transformers import BertConfig

import unipetl
from experiment.tiny import tiny_bart
from unipetl.errors import PlanError, RecipeError
from unipetl.experiment.budget import all_within, fill, solve, task_model
from unipetl.experiment.grid import ComparePlan, load_plan


@pytest.mark.parametrize(
    "method", ["lora(rank=?)", "prefix_tuning(length=?, mlp=none)", "mam(length=?, rank=?, mlp=none)"]
)
@pytest.mark.parametrize("budget", [1, 500, 5000])
def test_no_other_size_comes_closer(method, budget):
    model = tiny_bart()

    def cost(size):
        return unipetl.plan(method.replace("?", str(size)), model).added_parameters

    size, found = solve(method, model, budget)
    assert found == cost(size)
    distances = {other: abs(cost(other) - budget) for other in range(1, size + 5)}
    assert distances[size] == min(distances.values())


def test_the_largest_size_is_a_bound():
    assert solve("prompt_tuning(length=?)", tiny_bart(), 10**6, largest=7)[0] == 7


def test_a_method_without_a_size_stays_as_it_is():
    assert fill("bitfit", tiny_bart(), 100) == "bitfit"
    with pytest.raises(PlanError, match="mark the size to solve for with"):
        solve("bitfit", tiny_bart(), 100)


@pytest.fixture
def two_widths(tmp_path):
    """Folders of two models' dimensions, the second three times as wide."""
    for name, width in (("narrow", 16), ("wide", 48)):
        config = BertConfig(
            vocab_size=32, hidden_size=width, num_hidden_layers=2, num_attention_heads=2, intermediate_size=2 * width
        )
        config.save_pretrained(tmp_path / name)
    return str(tmp_path / "narrow"), str(tmp_path / "wide")


def test_each_model_of_a_comparison_gets_sizes_of_its_own(tmp_path, two_widths):
    methods = {"lora": "lora", "mapping": unipetl.parse("lora").plain(), "bitfit": "bitfit"}
    plan = ComparePlan(
        tasks={"sst2": {"methods": {"lora": {"training": {"learning_rate": 0.01}}}}, "mnli": {"model": two_widths[0]}},
        methods=methods,
        models=two_widths,
    )
    found = all_within(plan, 1536)
    ranks = {}
    for cell in found.cells():
        added = unipetl.plan(cell.recipe.parsed(), task_model(cell.recipe)).added_parameters
        ranks[cell.label, cell.title] = cell.recipe.method
        assert cell.label == "bitfit" or added == 1536, cell
    narrow, wide = two_widths
    assert (ranks["lora", f"sst2, {narrow}"], ranks["lora", f"sst2, {wide}"]) == ("lora(rank=12)", "lora(rank=4)")
    assert ranks["lora", "mnli"] == "lora(rank=12)"
    assert ranks["bitfit", f"sst2, {wide}"] == "bitfit"
    assert next(found.cells()).recipe.training == {"learning_rate": 0.01}
    assert load_plan(found.save(tmp_path / "plan.yaml")) == found
    assert all_within(found, 1536) == found


def test_a_budget_that_cannot_be_met_names_method_task_and_model(two_widths):
    plan = ComparePlan(tasks=["sst2"], methods={"small": "lora"}, models=two_widths)
    with pytest.raises(PlanError, match=rf"^small on sst2, {two_widths[1]}: budget: no size of 'lora' comes close to"):
        all_within(plan, 128)


def test_sizes_by_the_model_are_for_models_of_the_plan(two_widths):
    narrow, wide = two_widths

    def made(name, **task):
        part = {**task, "methods": {"lora": {"models": {name: "lora(rank=2)"}}}}
        return ComparePlan(tasks={"sst2": part}, methods=["lora"], models=[narrow])

    assert [cell.recipe.method for cell in made(narrow).cells()] == ["lora(rank=2)"]
    with pytest.raises(RecipeError, match=r"tasks.sst2.methods.lora.models.*unknown model of this plan"):
        made(wide)
    with pytest.raises(RecipeError, match="the task has a model of its own"):
        made(narrow, model=wide)
