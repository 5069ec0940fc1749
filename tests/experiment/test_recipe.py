"""What is wrong in a recipe or plan is said with its line and near match; what is right has a stable hash."""

from __future__ import annotations

import json

import jsonschema
import pytest
import yaml

from unipetl.errors import RecipeError
from unipetl.experiment import ComparePlan, Recipe, load_plan, load_recipe, plan_schema, recipe_schema

GOOD = """\
# an experiment
task: sentiment
method: lora(rank=8)
seeds: [0, 1]
limit: 100
training:
  learning_rate: 1e-3
  num_train_epochs: 2
  save_strategy: no
"""


def written(tmp_path, text, name="recipe.yaml"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_a_recipe_is_read_with_proper_types(tmp_path):
    recipe = load_recipe(written(tmp_path, GOOD))
    assert recipe.seeds == (0, 1)
    assert recipe.training == {"learning_rate": 1e-3, "num_train_epochs": 2.0, "save_strategy": "no"}
    assert recipe.parsed().modifications[0].form.rank == 8


def test_a_recipe_survives_being_written(tmp_path):
    recipe = load_recipe(written(tmp_path, GOOD))
    again = load_recipe(recipe.save(tmp_path / "again.yaml"))
    assert again == recipe
    assert again.hash() == recipe.hash()
    assert load_recipe(written(tmp_path, json.dumps(recipe.resolved()), "recipe.json")) == recipe


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("task: x\nmethd: lora\nmethod: lora\n", 2, "methd: unknown field. Did you mean 'method'?"),
        ("task: x\n\nmethod: lora(rnk=3)\n", 3, "method: method 'lora': unknown setting 'rnk'. Did you mean 'rank'?"),
        ("task: x\nmethod: lorra\n", 2, "Did you mean 'lora'?"),
        ("task: x\nmethod: lora(rank=)\n", 2, "cannot read this"),
        ("method: lora\n", 1, "task: this field is required"),
        ("task: x\nmethod: lora\nseeds: [0,\n  1,\n  0]\n", 5, "seeds.2: seed 0 stands there twice"),
        ("task: x\nmethod: lora\nseeds: []\n", 3, "seeds: expected a list of whole numbers"),
        ("task: x\nmethod: lora\nseeds: [-1]\n", 3, "seeds.0: expected a whole number from 0"),
        ("task: x\nmethod: lora\nlimit: 0\n", 3, "limit: Input should be greater than or equal to 1 (found 0)"),
        ("task: x\nmethod: lora\nlimit: 1.5\n", 3, "limit: Input should be a valid integer"),
        ("task: x\nmethod: lora\ntrain_head: 1\n", 3, "train_head: Input should be a valid boolean"),
        ("task: x\nmethod: lora\ntraining: fast\n", 3, "training: expected transformers' training arguments"),
        (
            "task: x\nmethod: lora\ntraining:\n  lerning_rate: 1\n",
            4,
            "training.lerning_rate: transformers' TrainingArguments has no such argument. Did you mean 'learning_",
        ),
        (
            "task: x\nmethod: lora\ntraining:\n  learning_rate: fast\n",
            4,
            "training.learning_rate: Input should be a valid",
        ),
        ("task: x\nmethod: lora\ntraining:\n  learning_rate: .nan\n", 4, "should be a finite number"),
        (
            "task: x\nmethod: lora\ntraining:\n  max_steps: 1.5\n",
            4,
            "training.max_steps: Input should be a valid integer",
        ),
        ("task: x\nmethod: lora\ntraining:\n  fp16: maybe\n", 4, "training.fp16: Input should be a valid boolean"),
        (
            "task: x\nmethod: lora\ntraining:\n  eval_strategy: stepz\n",
            4,
            "training.eval_strategy: unknown value. Did you mean 'steps'? Known: no, steps, epoch",
        ),
        ("task: x\nmethod: lora\ntraining:\n  seed: 1\n", 4, "a recipe cannot set this: the recipe's `seeds` is"),
        ("task: x\nmethod: lora\ntraining:\n  hub_token: hf_x\n", 4, "no place for a secret; `hf auth login`"),
        ("task: x\nmethod: lora\ntask: y\n", 3, "task: already given on line 1"),
        ("task: x\nmethod: [\n", 3, "this is not YAML"),
        ("task: x\nmethod: !!python/object/apply:os.getcwd []\n", 2, "could not determine a constructor"),
        ("- task: x\n", 1, "expected a recipe with the fields task, method"),
        ("", 1, "found nothing"),
        (
            "task: x\nmethod:\n  modifications:\n    - representation: ffn\n      form: {botleneck: {rank: 3}}\n",
            5,
            "unknown functional form 'botleneck'. Did you mean 'bottleneck'?",
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path, text, line, said):
    path = written(tmp_path, text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, tasks=["x"])
    assert str(caught.value).startswith(f"{path}:{line}: "), caught.value
    assert said in str(caught.value)
    assert "\n" not in str(caught.value) or "cannot read this" in said


@pytest.mark.parametrize(
    ("load", "text", "faults"),
    [
        (load_recipe, "method: lora\n\ntask: sentimant\n", {3: "task"}),
        (load_recipe, "method: lorra\ntask: sentimant\nlimit: 0\n", {1: "method", 2: "task", 3: "limit"}),
        (load_plan, "methods: [lora]\ntasks: sentimant\n", {2: "tasks"}),
        (load_plan, "methods: [lora]\ntasks:\n- pronounce\n- sentimant\n", {4: "tasks.1"}),
        (load_plan, "methods: [lora]\ntasks:\n  sentimant: {limit: 3}\n  mine:\n", {3: "tasks.sentimant"}),
        (load_plan, "methods: [lorra]\ntasks: [sentimant]\n", {1: "methods.lorra.method", 2: "tasks.0"}),
    ],
)
def test_an_unknown_task_is_said_with_its_line(tmp_path, load, text, faults):
    path = written(tmp_path, text)
    with pytest.raises(RecipeError) as caught:
        load(path, tasks=["mine"])
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[:2] for line in lines] == [[f"{path}:{at}", field] for at, field in faults.items()]
    (said,) = (line for line in lines if "unknown task" in line)
    assert "unknown task 'sentimant'. Did you mean 'sentiment'? Known: causal-lm, " in said


def test_tasks_of_ones_own_are_known_to_whoever_names_them(tmp_path):
    recipe = written(tmp_path, "task: mine\nmethod: lora\n")
    plan = written(tmp_path, "tasks: [sentiment, mine]\nmethods: [lora]\n", "plan.yaml")
    for known in (["mine"], {"mine": "package.module:object"}, None):
        assert load_recipe(recipe, tasks=known).task == "mine"
        assert list(load_plan(plan, tasks=known).tasks) == ["sentiment", "mine"]
    for load, path in ((load_recipe, recipe), (load_plan, plan)):
        with pytest.raises(RecipeError, match="unknown task 'mine'"):
            load(path)


def test_every_fault_is_reported_in_the_order_of_the_lines(tmp_path):
    path = written(tmp_path, "limit: 0\ntask: x\ntraining:\n  wrong_a: 1\n  wrong_b: 2\nmethod: lorra\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, tasks=["x"])
    places = [line.split(": ")[0].removeprefix(str(path)) for line in str(caught.value).splitlines()]
    assert places == [":1", ":4", ":5", ":6"]


def test_a_missing_or_binary_file_is_said(tmp_path):
    with pytest.raises(RecipeError, match=r"cannot read .*No such file"):
        load_recipe(tmp_path / "absent.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="cannot read"):
        load_recipe(tmp_path / "binary.yaml")


def test_the_constructor_says_the_field():
    with pytest.raises(RecipeError, match=r"^traning: unknown field\. Did you mean 'training'"):
        Recipe(task="x", method="lora", traning={})


@pytest.mark.parametrize(
    "change",
    [
        {"method": "lora"},
        {"method": "lora( rank = 16 )"},
        {"seeds": [7]},
        {"name": "mine"},
        {"training": {"learning_rate": "1e-3"}},
    ],
)
def test_recipes_that_compute_the_same_have_one_hash(change):
    data = {"task": "x", "method": "lora(rank=16)", "training": {"learning_rate": 0.001}}
    assert Recipe(**{**data, **change}).hash() == Recipe(**data).hash()


@pytest.mark.parametrize(
    "change",
    [
        {"method": "lora(rank=17)"},
        {"method": "none"},
        {"task": "y"},
        {"limit": 10},
        {"model": "other"},
        {"train_head": False},
        {"training": {"learning_rate": 0.002}},
        {"training": {"learning_rate": 0.001, "weight_decay": 0.1}},
    ],
)
def test_recipes_that_compute_something_else_have_another_hash(change):
    data = {"task": "x", "method": "lora(rank=16)", "training": {"learning_rate": 0.001}}
    assert Recipe(**{**data, **change}).hash() != Recipe(**data).hash()


def test_a_hash_stays_what_it_is():
    recipe = Recipe(task="sentiment", method="bitfit", training={"learning_rate": 0.001, "max_steps": 10})
    assert recipe.hash() == "341c91ae4ce4f732"


def test_zero_shot_recipes_differ_only_by_what_is_evaluated():
    one = Recipe(task="x", method=None, training={"learning_rate": 1})
    assert one.zero_shot
    assert one.hash() == Recipe(task="x", method="None", limit=3).hash()
    assert one.hash() != Recipe(task="x", method="none", evaluation_limit=3).hash()


def test_the_schema_accepts_recipes_and_refuses_faults():
    schema = recipe_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    check = jsonschema.Draft202012Validator(schema)
    assert not list(check.iter_errors({**yaml.safe_load(GOOD), "training": {"learning_rate": 0.1, "optim": "sgd"}}))
    assert not list(check.iter_errors(Recipe(task="x", method={"modifications": [], "train": ["bias"]}).resolved()))
    for fault in (
        {"lerning": 1},
        {"seeds": []},
        {"training": {"lerning_rate": 1}},
        {"training": {"optim": "x"}},
        {"method": 3},
    ):
        assert list(check.iter_errors({"task": "x", "method": "lora", **fault})), fault


PLAN = """\
tasks:
  sentiment:
    limit: 10
    training: {weight_decay: 0.1, learning_rate: 0.2}
    methods:
      LoRA: {method: lora(rank=2), training: {learning_rate: 0.4}}
  pronounce:
methods:
  zero-shot: none
  LoRA: {method: lora(rank=4), training: {learning_rate: 0.3}}
  free: {modifications: [], train: [bias]}
seeds: [1, 2]
training: {learning_rate: 0.1, max_steps: 5}
"""


def test_a_plan_is_a_grid_of_recipes(tmp_path):
    plan = load_plan(written(tmp_path, PLAN))
    cells = {(cell.task, cell.label): cell.recipe for cell in plan.cells()}
    assert len(cells) == 6
    lora = cells["sentiment", "LoRA"]
    assert (lora.method, lora.limit, lora.seeds) == ("lora(rank=2)", 10, (1, 2))
    assert lora.training == {"learning_rate": 0.4, "max_steps": 5, "weight_decay": 0.1}
    assert cells["pronounce", "LoRA"].training == {"learning_rate": 0.3, "max_steps": 5}
    assert cells["sentiment", "free"].training["learning_rate"] == 0.2
    assert cells["pronounce", "zero-shot"].zero_shot
    assert load_plan(plan.save(tmp_path / "again.yaml")) == plan
    check = jsonschema.Draft202012Validator(plan_schema())
    assert not list(check.iter_errors(yaml.safe_load(PLAN)))
    assert list(check.iter_errors({"tasks": ["x"], "methods": ["lora"], "trainin": {}}))


def test_a_plan_of_lists_labels_methods_by_their_text():
    plan = ComparePlan(tasks=["a", "b"], methods=["lora(rank=2)", "bitfit"])
    assert [(cell.task, cell.label) for cell in plan.cells()][:2] == [("a", "lora(rank=2)"), ("a", "bitfit")]
    assert len({cell.folder() for cell in plan.cells()}) == 4


def test_a_plan_takes_the_parts_of_another():
    one = ComparePlan(tasks={"a": {"limit": 3}}, methods={"x": {"method": "lora", "train_head": False}, "y": "none"})
    assert ComparePlan(tasks=dict(one.tasks), methods=dict(one.methods)) == one


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("tasks: [a]\nmethods:\n  x: lorra\n", 3, "methods.x.method: unknown method 'lorra'. Did you mean 'lora'?"),
        ("tasks: [a]\nmethods:\n  x: {method: lora, trainin: {}}\n", 3, "unknown field. Did you mean 'training'?"),
        (
            "tasks:\n  a:\n    training:\n      lerning_rate: 1\nmethods: [lora]\n",
            4,
            "tasks.a.training.lerning_rate: transformers' TrainingArguments has no such argument. Did you mean",
        ),
        ("tasks: [a, a]\nmethods: [lora]\n", 1, "tasks.1: expected the name of a task, once"),
        ("tasks: [a]\nmethods: []\n", 2, ""),
        ("methods: [lora]\n", 1, "tasks: this field is required"),
        (
            "tasks:\n  a:\n    methods:\n      LoRa: {method: lora}\nmethods: {LoRA: lora}\n",
            4,
            "tasks.a.methods.LoRa: unknown method 'LoRa'. Did you mean 'LoRA'?",
        ),
    ],
)
def test_what_is_wrong_in_a_plan_is_said_with_its_line(tmp_path, text, line, said):
    path = written(tmp_path, text, "plan.yaml")
    with pytest.raises(RecipeError) as caught:
        load_plan(path, tasks=["a"])
    assert str(caught.value).startswith(f"{path}:{line}: "), caught.value
    assert said in str(caught.value)
