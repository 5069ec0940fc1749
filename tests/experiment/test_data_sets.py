"""Data sets of one's own stand side by side in a plan, under names that are folders and that people read."""

from __future__ import annotations

import jsonschema
import pytest

from reporting.made import write_comparison
from unipetl.errors import RecipeError, TaskError
from unipetl.experiment import ComparePlan, compare, load_plan, plan_schema, report
from unipetl.reporting import gather, to_html, to_latex, to_markdown

PLAN = """\
tasks:
  reviews: {task: csv-classification, model: some/model, options: {train: reviews.csv}}
  News & more: {task: csv-classification, options: {train: news.csv}}
  sentiment:
methods: {LoRA: lora(rank=2)}
"""


def written(tmp_path, text):
    (tmp_path / "plan.yaml").write_text(text)
    return tmp_path / "plan.yaml"


def test_a_name_is_for_people_and_its_task_for_the_run(tmp_path):
    plan = load_plan(written(tmp_path, PLAN))
    cells = list(plan.cells())
    assert [(one.task, one.recipe.task) for one in cells] == [
        ("reviews", "csv-classification"),
        ("News & more", "csv-classification"),
        ("sentiment", "sentiment"),
    ]
    assert cells[0].folder().startswith("runs/reviews/LoRA-")
    assert load_plan(plan.save(tmp_path / "again.yaml")) == plan
    jsonschema.Draft202012Validator(plan_schema()).validate(plan.model_dump(mode="json"))


def test_folders_and_hashes_of_plans_without_names_of_their_own_stay():
    tasks = {"csv-classification": {"options": {"train": "a.csv"}, "limit": 4}, "sentiment": None}
    methods = {"lora": "lora(rank=2)", "zero": "none"}
    plan = ComparePlan(tasks=tasks, methods=methods, seeds=[0, 1], training={"learning_rate": 1e-3})
    frozen = ["016efd270e9078b1", "3f203b7dd469e500", "2d160562a3407779", "55627998b72ef517"]
    assert [one.recipe.hash() for one in plan.cells()] == frozen
    assert next(plan.cells()).folder() == "runs/csv-classification/lora-016efd27"
    named = ComparePlan(tasks={"mine": {"task": "csv-classification", **tasks["csv-classification"]}}, methods=methods)
    alone = ComparePlan(tasks={"csv-classification": tasks["csv-classification"]}, methods=methods)
    assert [one.recipe.hash() for one in named.cells()] == [one.recipe.hash() for one in alone.cells()]


def test_a_name_with_its_task_alone_is_enough(tmp_path):
    plan = load_plan(written(tmp_path, "tasks: {reviews: sentiment, news: {task: sentiment}}\nmethods: [lora]\n"))
    assert [(one.task, one.recipe.task) for one in plan.cells()] == [("reviews", "sentiment"), ("news", "sentiment")]
    short = {"tasks": {"reviews": "sentiment", "other": None}, "methods": ["lora"]}
    jsonschema.Draft202012Validator(plan_schema()).validate(short)


def test_the_names_of_tasks_themselves_are_taken_as_they_are():
    plan = ComparePlan(tasks=["glue:cola", "org/mine"], methods=["lora"])
    assert list(plan.tasks) == ["glue:cola", "org/mine"]


def test_a_task_and_one_of_its_models_is_no_other_task_of_that_title(tmp_path):
    plan = ComparePlan(
        tasks={"x": "sentiment", "x, m": {"task": "sentiment", "model": "k"}}, methods=["lora"], models=["m"]
    )
    assert [one.title for one in plan.cells()] == ["x, m", "x, m"]
    assert len(report(write_comparison(tmp_path / "out", plan=plan)).tables) == 2


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ("  reviews: {task: csv-clasification}", "yaml:2: tasks.reviews.task: unknown task 'csv-clasification'. Did"),
        ("  csv-clasification: {}", "plan.yaml:2: tasks.csv-clasification: unknown task 'csv-clasification'. Did"),
        ("  reviews: {}", "A name of your own needs the task that reads its data"),
        ("  reviews: {task: csv-classification, options: {tran: a}}", "plan.yaml:2: tasks.reviews.options: "),
        ("  a/b: {task: sentiment}", "the name becomes a folder, and it has '/' in it"),
        ("  ..: {task: sentiment}", "dot"),
        ("  '': {task: sentiment}", "it is empty"),
        ("  'a ': {task: sentiment}", "ends with a space"),
        (f"  {'x' * 121}: {{task: sentiment}}", "it has 121 bytes, and 120 are the most"),
        ("  nul.txt: {task: sentiment}", "is a device's name in Windows"),
        ("  2024: {task: sentiment}", "expected a name as text; found 2024. Put it in quotes."),
        ("  News: {task: sentiment}\n  news: {task: sentiment}", "plan.yaml:3: tasks.news: 'News' is there too"),
        ("  sentiment:\n  Sentiment: csv-classification", "tasks.Sentiment: 'sentiment' is there too"),
        ("  reviews: csv-clasification", "tasks.reviews.task: unknown task 'csv-clasification'. Did"),
        ("  reviews: 3", "tasks.reviews: "),
        ('  "a\\u200b": {task: sentiment}', r"has '\u200b' in it"),
        ("  a: {task: ''}", "tasks.a.task: "),
        ("  a: {task: [sentiment]}", "tasks.a.task: "),
    ],
)  # fmt: skip
def test_names_that_are_no_folders_and_unknown_tasks_are_refused_where_they_stand(tmp_path, tasks, message):
    with pytest.raises(RecipeError) as error:
        load_plan(written(tmp_path, f"tasks:\n{tasks}\nmethods: [lora]\n"))
    assert message in str(error.value)


def test_an_unknown_task_is_refused_before_anything_runs(tmp_path):
    plan = ComparePlan(tasks={"reviews": {"task": "csv-clasification"}}, methods=["lora"])
    with pytest.raises(TaskError, match=r"reviews: unknown task 'csv-clasification'\. Did you mean 'csv-cla"):
        compare(plan, tmp_path / "out")
    assert not (tmp_path / "out" / "plan.yaml").exists()


def test_every_page_says_the_name_and_its_commands_the_task(tmp_path):
    plan = load_plan(written(tmp_path, PLAN))
    scores = {("LoRA", 1): None}
    folder = write_comparison(tmp_path / "out", plan=plan.model_copy(update={"seeds": (0, 1)}), scores=scores)
    found = report(folder)
    assert [one.task for one in found.tables] == ["reviews", "News & more", "sentiment"]
    assert [one.task for one in found.failures] == ["reviews", "News & more", "sentiment"]
    gathered = gather([folder])
    assert [one.title for one in gathered.columns] == ["reviews, some/model", "News & more", "sentiment"]
    assert [one.task for one in gathered.failures] == ["reviews, some/model", "News & more", "sentiment"]
    page = to_html(gathered)
    assert "News &amp; more" in page
    assert "unipetl train --task csv-classification" in page
    assert "--task reviews" not in page
    assert r"News \& more" in to_latex(gathered)
    assert r"News \& more" in to_markdown(gathered)


def test_runs_of_a_comparison_that_are_reported_alone_keep_their_data_apart(tmp_path):
    folder = write_comparison(tmp_path / "out", plan=load_plan(written(tmp_path, PLAN)))
    runs = [next(folder.glob(f"runs/{name}/*")) for name in ("reviews", "News & more")]
    assert [one.task for one in gather(runs).columns] == ["reviews", "News & more"]
