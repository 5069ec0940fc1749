"""A report reads comparisons, experiments and single runs, and says what failed, what is missing and what is no run."""

from __future__ import annotations

import json

import pytest

from reporting.made import write_comparison, write_run
from unipetl.errors import RunError
from unipetl.experiment.directory import read_lines, write_lines
from unipetl.experiment.recipe import Recipe
from unipetl.reporting import gather, to_html
from unipetl.reporting.figures import series


def test_a_comparison_is_its_columns_with_their_methods(tmp_path):
    found = gather([write_comparison(tmp_path / "first", tasks=("sst2", "mnli"))])
    assert found.title == "made by hand"
    assert [(column.task, column.metric, column.base_parameters) for column in found.columns] == [
        ("sst2", "accuracy", 1_000_000),
        ("mnli", "accuracy", 1_000_000),
    ]
    lora, *_, full, zero = found.columns[0].experiments
    assert lora.scores() == [84, 85]
    assert (lora.mean(), lora.std()) == (84.5, pytest.approx(0.5**0.5))
    assert full.whole
    assert not lora.whole
    assert zero.first.parameters == 0
    assert [one.label for one in found.columns[0].best()] == ["adapter"]  # 87.5, and not the whole model
    assert found.number("adapter") == 2
    assert len(found.runs()) == 16
    assert [(one.name, one.command) for one in found.sources] == [("first", "unipetl compare plan.yaml")]


def test_failed_missing_diverged_and_damaged_runs_are_told_apart(tmp_path):
    scores = {("LoRA", 0): None, ("LoRA", 1): "missing", ("adapter", 0): float("nan")}
    folder = write_comparison(tmp_path / "first", scores=scores)
    damaged = next(folder.glob("runs/sst2/full-*")) / "seed-1" / "metrics.json"
    damaged.write_text("{")
    found = gather([folder])
    assert found.missing == 1
    reasons = {(one.label, one.seed): (one.error, one.message) for one in found.failures}
    assert reasons["LoRA", 0] == ("PlanError", "it makes no <sense>")
    assert "not a number" in reasons["adapter", 0][1]
    assert "damaged" in reasons["full", 1][1]
    assert [(one.label, len(one.runs)) for one in found.columns[0].experiments] == [
        ("adapter", 1),
        ("full", 1),
        ("zero-shot", 2),
    ]


def test_runs_and_experiments_of_several_folders_are_put_together(tmp_path):
    recipe, other = Recipe(task="sst2", method="lora(rank=2)"), Recipe(task="sst2", method="lora(rank=4)", name="wide")
    for seed in (0, 1):
        write_run(tmp_path / "lora" / f"seed-{seed}", recipe, seed, score=80 + seed)
    write_run(tmp_path / "third", recipe, 2, score=90)
    write_run(tmp_path / "again", recipe, 2, score=10)  # the same seed: the first counts
    write_run(tmp_path / "wide", other, 0, score=70)
    found = gather([tmp_path / one for one in ("lora", "third", "again", "wide")])
    (column,) = found.columns
    assert {one.label: one.scores() for one in column.experiments} == {"lora(rank=2)": [80, 81, 90], "wide": [70]}


def test_two_recipes_of_one_name_keep_apart(tmp_path):
    for rank in (2, 4):
        recipe = Recipe(task="sst2", method=f"lora(rank={rank})", name="LoRA")
        write_run(tmp_path / f"{rank}", recipe, 0, score=80)
    found = gather([tmp_path / "2", tmp_path / "4"])
    assert found.labels() == ["LoRA", "LoRA: lora(rank=4)"]


def test_logs_and_plans_that_are_damaged_are_left_out(tmp_path):
    folder = write_run(tmp_path / "one", Recipe(task="sst2", method="lora"), 0, score=80)
    (folder / "plan.json").write_text(json.dumps({"rows": [1], "trained": {}, "head": []}))
    (folder / "environment.json").write_text("[]")
    (folder / "log.jsonl").write_text('{"step": 1, "loss": 2}\n[]\n{"loss": 1}\n{"step"')
    (run,) = gather([folder]).runs()
    assert run.plan is None
    assert run.environment == {}
    assert run.log == ({"step": 1, "loss": 2},)


@pytest.mark.parametrize("change", [{"share": "half"}, {"metrics": []}, {"parameters": None}, {"score": "high"}])
def test_a_result_of_other_types_is_a_damaged_one(tmp_path, change):
    folder = write_run(tmp_path / "one", Recipe(task="sst2", method="lora"), 0, score=80)
    path = folder / "metrics.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    (failure,) = gather([folder]).failures
    assert f"damaged ({next(iter(change))} is" in failure.message


def test_a_log_with_values_that_are_no_numbers_has_a_page(tmp_path):
    folder = write_run(tmp_path / "one", Recipe(task="sst2", method="lora"), 0, score=80)
    values = ("1e999", "NaN", "1", "2")
    rows = [f'{{"step": {step}, "loss": {value}}}' for step, value in enumerate(values, start=1)]
    (folder / "log.jsonl").write_text("\n".join(rows))
    found = gather([folder])
    assert series(found.columns[0].experiments[0], "loss") == [(3, [1.0]), (4, [2.0])]
    assert "<svg" in to_html(found)


def test_lines_end_where_they_were_written_to_end(tmp_path):
    rows = [{"text": "one\u2028two\x85three"}, {"text": "four"}]
    write_lines(tmp_path / "rows.jsonl", rows)
    whole = (tmp_path / "rows.jsonl").read_bytes()
    assert read_lines(tmp_path / "rows.jsonl") == rows
    (tmp_path / "rows.jsonl").write_bytes(whole + '{"text": "ö'.encode()[:-1])  # a process ended inside a sign
    assert read_lines(tmp_path / "rows.jsonl") == rows


@pytest.mark.parametrize("content", ["null", "[]", '"text"', "{}", "{"])
def test_a_damaged_search_is_told(tmp_path, content):
    (tmp_path / "search.yaml").write_text("task: sst2\nbudget: 1 %\n")
    (tmp_path / "search.json").write_text(content)
    with pytest.raises(RunError, match=r"search\.json' is damaged"):
        gather([tmp_path])


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (lambda path: None, ["does not exist", "unipetl compare"]),
        (lambda path: path.write_text(""), ["is a file"]),
        (lambda path: path.mkdir(), ["holds no runs"]),
        (lambda path: write_comparison(path / "inner"), ["There is a comparison in", "inner"]),
        (lambda path: Recipe(task="sst2", method="lora").save(path / "recipe.yaml"), ["no run there is finished (1 "]),
    ],
)
def test_what_holds_no_runs_is_refused(tmp_path, make, parts):
    make(tmp_path / "there")
    with pytest.raises(RunError) as error:
        gather([tmp_path / "there"])
    assert [part for part in parts if part not in str(error.value)] == []
