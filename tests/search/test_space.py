"""The choices: only what makes sense is drawn, every name has one set of values, and sizes follow from the budget."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiment.tiny import tiny_bart, tiny_bert
from unipetl.errors import PlanError, RecipeError, RunError, TaskError
from unipetl.planning import plan
from unipetl.search import Search, Space
from unipetl.search.definition import load_search, parameters
from unipetl.search.space import Choices, Point, Shape, fit, sized

MODELS = {"encoder": tiny_bert().to("meta"), "encoder-decoder": tiny_bart().to("meta")}
BUDGET = 2000
CHOICES = {name: Choices(Space(), model, BUDGET) for name, model in MODELS.items()}


def drawn(name, seed, choices=None):
    draw = random.Random(seed)
    return (choices or CHOICES[name]).draw(lambda _, values: draw.choice(list(values)))


@pytest.mark.parametrize("name", MODELS)
@given(seed=st.integers(0, 2**20))
def test_every_point_makes_sense_and_keeps_to_the_budget(name, seed):
    point = drawn(name, seed)
    found = sized(point, MODELS[name], BUDGET)
    if found is None:
        return  # a part's smallest size is larger than its part of the budget
    method, cost = found
    assert plan(method, MODELS[name]).added_parameters == cost <= BUDGET


@pytest.mark.parametrize("name", MODELS)
def test_a_name_always_comes_with_the_same_values(name):
    seen = {}
    draw = random.Random(0)

    def pick(axis, values):
        assert seen.setdefault(axis, tuple(values)) == tuple(values)
        assert len(values) > 1
        return draw.choice(list(values))

    for _ in range(300):
        CHOICES[name].draw(pick)
    assert "where" in seen
    assert ("stack" in seen) is (name == "encoder-decoder")


def test_every_change_that_makes_sense_is_a_choice():
    """Against the refusals themselves: exactly the combinations that can be planned are offered."""
    from itertools import product

    from unipetl.method import Method

    space, sound = Space(), set()
    for values in product(space.representation, space.form, space.insertion, space.composition):
        shape = Shape(*values)
        try:
            made = plan(Method(modifications=list(shape.modifications(1, 1.0, ({},)))), MODELS["encoder"])
        except PlanError:
            continue
        if made.added_parameters <= BUDGET:
            sound.add(shape)
    assert set(CHOICES["encoder"].shapes) == sound
    assert Shape("attention.heads", "prefix", "parallel", "gate") in sound
    assert Shape("ffn", "prefix", "parallel", "gate") not in sound


def test_mam_is_a_point():
    """The paper's best method: a prefix in the attention and a scaled parallel adapter in the FFN."""
    wanted = {
        "where": "both", "attention.representation": "attention.heads", "attention.form": "prefix",
        "attention.composition": "gate", "ffn.representation": "ffn", "ffn.form": "bottleneck",
        "ffn.insertion": "parallel", "ffn.scale": 4.0, "stack": "all", "layers": "all", "split": 0.1,
    }  # fmt: skip
    point = CHOICES["encoder"].draw(lambda name, values: wanted[name.partition(" of ")[0]])
    method, _ = sized(point, MODELS["encoder"], BUDGET)
    rows = [
        (one.form.tag, str(one.representation), one.insertion.tag, one.composition.tag) for one in method.modifications
    ]
    assert rows == [
        ("head_attention", "attention.heads", "parallel", "gate"),
        ("bottleneck", "ffn", "parallel", "add"),
    ]
    assert method.modifications[1].composition.scale == 4.0


def test_the_size_is_the_largest_within_the_budget():
    model = MODELS["encoder"]
    shape = Shape("ffn", "low_rank", "parallel", "add")
    point = Point({}, ((shape, 1.0),), ({},), None, None)

    def cost(size):
        return plan(point.part(0, size), model).added_parameters

    for budget in (cost(1), cost(3) - 1, cost(3), cost(3) + 1):
        size, found = fit(lambda size: point.part(0, size), model, budget, 4096)
        assert found == cost(size) <= budget < cost(size + 1)
    assert fit(lambda size: point.part(0, size), model, cost(1) - 1, 4096) is None
    assert fit(lambda size: point.part(0, size), model, 10**6, 7)[0] == 7


def test_halves_of_the_layers_are_halves():
    point = drawn("encoder", 0, Choices(Space(layers=("upper half",), where=("ffn",)), MODELS["encoder"], BUDGET))
    assert point.spans == ({"stack": "encoder", "layers": (1,)},)
    point = drawn("encoder", 0, Choices(Space(layers=("lower half",), where=("ffn",)), MODELS["encoder"], BUDGET))
    assert point.spans == ({"stack": "encoder", "layers": (0,)},)


@pytest.mark.parametrize(
    ("space", "budget", "parts"),
    [
        (
            Space(form=("prefix",), representation=("ffn",)),
            2000,
            ["nothing in the space makes sense here", "attention.heads"],
        ),
        (Space(), 1, ["nothing in the space makes sense here within 1 parameters", "more than 1"]),
        (Space(stack=("decoder",)), 2000, ["unknown stack 'decoder'", "encoder"]),
    ],
)
def test_a_space_without_points_is_refused(space, budget, parts):
    with pytest.raises(RunError) as error:
        Choices(space, MODELS["encoder"], budget)
    assert [part for part in parts if part not in str(error.value)] == []


@pytest.mark.parametrize(
    ("budget", "found"),
    [
        ("0.5%", 5000),
        ("0.5 %", 5000),
        ("6.7 %", 67000),
        (1234, 1234),
        ("1_000", 1000),
        ("2,000", 2000),
        ("50k", 50_000),
        ("1.5M", 1_500_000),
    ],
)
def test_a_budget_is_a_share_or_a_number(budget, found):
    assert parameters(budget, 1_000_000) == found


@pytest.mark.parametrize("budget", ["half", "", "0 %", "-1", "0.5", 0, True, "1e5", "% 5", "9" * 400])
def test_other_budgets_are_refused(budget):
    with pytest.raises(TaskError, match=r"a share such as 0.5%"):
        parameters(budget, 1000)
    with pytest.raises(RecipeError, match="budget"):
        Search(task="sentiment", budget=budget)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("task: sentiment\n", [":1: budget: this field is required"]),
        ("task: sentimet\nbudget: 1%\n", [":1: task: unknown task 'sentimet'. Did you mean 'sentiment'"]),
        (
            "task: sentiment\nbudget: 1%\nspace: {representation: [fnn]}\n",
            [":3: space.representation.0", "Did you mean 'ffn"],
        ),
        (
            "task: sentiment\nbudget: 1%\nspace: {from: [prefix]}\n",
            [":3: space.from: unknown field. Did you mean 'form'"],
        ),
        ("task: sentiment\nbudget: 1%\nspace: {split: [1.5]}\n", [":3: space.split.0", "less than 1"]),
        ("task: sentiment\nbudget: 1%\ntrials: 0\n", [":3: trials"]),
        ("task: sentiment\nbudget: 1%\npruner: medain\n", [":3: pruner"]),
    ],
)
def test_a_file_says_what_is_wrong_and_where(tmp_path, text, parts):
    (tmp_path / "search.yaml").write_text(text)
    with pytest.raises(RecipeError) as error:
        load_search(tmp_path / "search.yaml")
    assert [part for part in parts if part not in str(error.value)] == []


def test_a_search_can_be_written_and_read(tmp_path):
    whole = Search(task="sentiment", budget="0.5 %", space={"form": ["low_rank"], "learning_rate": [1e-3]}, trials=7)
    assert load_search(whole.save(tmp_path / "search.yaml")) == whole
    assert whole.hash() == whole.model_copy(update={"trials": 9, "name": "x"}).hash()
    assert whole.hash() != whole.model_copy(update={"budget": "0.6 %"}).hash()
