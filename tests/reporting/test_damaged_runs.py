"""A run whose files hold sound JSON of another shape is told, names its file, and hides no other run."""

from __future__ import annotations

import json
import math

import pytest

from cli.calling import call, data, refusal
from reporting.made import write_comparison, write_run
from unipetl.errors import RunError
from unipetl.experiment import Recipe, report, sureness
from unipetl.experiment.directory import RunDirectory
from unipetl.reporting import gather, to_markdown
from unipetl.search.result import read_result

SHAPES = ["[]", '"x"', "{}", "null", "3", "[[]]", "{"]
FILES = ["metrics.json", "environment.json", "plan.json", "log.jsonl", "predictions.jsonl"]
VALUES = [[], "x", True, {}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_comparison(tmp_path_factory.mktemp("made") / "first")


@pytest.mark.parametrize("name", FILES)
def test_every_shape_of_every_file_has_a_page(folder, name):
    """Of a damaged result the reason is shown; of other files what they would add is left out."""
    file = next(folder.glob("runs/sst2/LoRA-*/seed-0")) / name
    before = file.read_text() if file.exists() else None
    try:
        for shape in SHAPES:
            file.write_text(shape)
            found = gather([folder])
            damaged = name == "metrics.json"
            assert [(one.label, one.seed) for one in found.failures] == ([("LoRA", 0)] if damaged else [])
            assert len(found.runs()) == 8 - damaged
            assert not damaged or "metrics.json' is damaged (" in found.failures[0].message
            assert shape != "[[]]" or "# made by hand" in to_markdown(found)
    finally:
        file.unlink() if before is None else file.write_text(before)


def test_results_are_whole_or_damaged(tmp_path):
    files = RunDirectory(write_run(tmp_path / "one", Recipe(task="sst2", method="lora"), 0, score=80))
    whole = json.loads(files.metrics.read_text())
    for field in whole:
        for value in [*VALUES, None]:
            files.metrics.write_text(json.dumps({**whole, field: value}))
            try:
                result = files.result()
            except RunError as error:
                assert f"metrics.json' is damaged ({field}" in str(error)  # noqa: PT017 - most values are wrong
                continue
            found = getattr(result, field)
            assert found == value or (value is None and math.isnan(found))
        files.metrics.write_text(json.dumps({key: value for key, value in whole.items() if key != field}))
        with pytest.raises(RunError, match=f"it has no '{field}'"):
            files.result()
    files.metrics.write_text(json.dumps({**whole, "metrics": {"accuracy": "high"}}))
    with pytest.raises(RunError, match=r"metrics\.accuracy is 'high'"):
        files.result()


def test_an_experiment_with_a_damaged_run_is_still_inspected_and_reported(tmp_path):
    recipe = Recipe(task="sst2", method="lora(rank=2)")
    for seed in (0, 1, 2):
        write_run(tmp_path / f"seed-{seed}", recipe, seed, score=80 + seed)
    (tmp_path / "seed-0" / "metrics.json").write_text("[]")
    (tmp_path / "seed-1" / "recipe.yaml").write_text("[]")
    said = call("inspect", tmp_path).stdout
    assert "82.0000" in said
    assert "seed-0: " in said
    assert "is damaged (expected an object, found list)" in said
    assert [("damaged" in one) for one in data("inspect", tmp_path)["runs"]] == [True, True, False]
    found = gather([tmp_path])
    assert [one.seed for one in found.failures] == [0, 1]
    assert [run.result.seed for run in found.runs()] == [2]


def test_a_score_that_is_no_number_is_shown_as_such(tmp_path):
    write_run(tmp_path / "seed-0", Recipe(task="sst2", method="lora(rank=2)"), 0, score=float("nan"))
    assert "nan" in call("inspect", tmp_path).stdout
    assert data("inspect", tmp_path / "seed-0")["result"]["score"] is None
    assert "nan" in call("inspect", tmp_path / "seed-0").stdout


@pytest.mark.parametrize("shape", SHAPES)
def test_a_reason_of_another_shape_is_told(tmp_path, shape):
    folder = write_comparison(tmp_path / "first", scores={("LoRA", 0): None})
    next(folder.glob("runs/sst2/LoRA-*/seed-0.failed.json")).write_text(shape)
    (failure,) = report(folder).failures
    assert "failed.json' is damaged" in failure.message


@pytest.mark.parametrize("line", ['{"input": "a"}', '{"input": "a", "gold": 1, "predicted": 1}'])
def test_predictions_that_lack_something_are_refused(tmp_path, line):
    path = write_run(tmp_path / "one", Recipe(task="sst2", method="lora"), 0, score=80)
    (path / "predictions.jsonl").write_text(line + "\n")
    with pytest.raises(RunError, match="one"):
        sureness.interval(path)


def test_a_search_of_other_types_is_damaged(tmp_path):
    tried = {"number": 0, "state": "complete", "score": "high", "axes": {}, "method": {}, "cost": 1, "runs": []}
    whole = {"task": "sst2", "metric": "accuracy", "greater_is_better": True, "budget": 1, "trials": 1, "refused": 0}
    (tmp_path / "search.json").write_text(json.dumps({**whole, "importance": {}, "values": [], "tried": [tried]}))
    with pytest.raises(RunError, match=r"search\.json' is damaged \(tried\.0\.score: "):
        read_result(tmp_path)
    (tmp_path / "search.yaml").write_text("task: sst2\nbudget: 1 %\n")
    assert "tried.0.score" in refusal("report", tmp_path)
