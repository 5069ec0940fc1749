"""evaluate, predict and inspect, on what train has left."""

from __future__ import annotations

import io
import json
import shutil
import sys

import pytest

from cli.calling import call, data, refusal

pytestmark = pytest.mark.usefixtures("tiny")


@pytest.fixture
def unfinished(trained, tmp_path):
    """A run that was stopped before its result was written."""
    shutil.copytree(trained / "seed-0", tmp_path / "run")
    (tmp_path / "run" / "metrics.json").unlink()
    return tmp_path / "run"


def test_evaluating_again_gives_what_was_recorded(trained):
    found = data("evaluate", trained)
    assert [run["path"] for run in found["runs"]] == [str(trained / "seed-0"), str(trained / "seed-1")]
    for run in found["runs"]:
        assert run["metrics"]["accuracy"] == run["recorded"]["accuracy"]
    assert "when it was trained" in call("evaluate", trained / "seed-0").stdout


def test_evaluating_a_few_says_so(trained):
    assert "at most 2 examples" in call("evaluate", trained / "seed-0", "--limit", 2).stderr
    assert "limit" in refusal("evaluate", trained, "--limit", 0, code=2)


def test_texts_are_predicted(trained):
    rows = data("predict", trained / "seed-0", "w3 w4", "w5")
    assert [row["input"] for row in rows] == ["w3 w4", "w5"]
    assert {row["predicted"] for row in rows} <= {"even", "odd"}
    assert "probability" in call("predict", trained / "seed-0", "w3 w4").stdout


def test_files_and_standard_input_are_predicted(trained, tmp_path, monkeypatch):
    (tmp_path / "in.txt").write_text("w3 w4\n\nw5\n")
    rows = data("predict", trained / "seed-0", "-i", tmp_path / "in.txt")
    call("predict", trained / "seed-0", "-i", tmp_path / "in.txt", "-o", tmp_path / "out.jsonl")
    assert [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()] == rows
    from typer.testing import CliRunner

    from unipetl.cli.main import app

    run = CliRunner().invoke(app, ["predict", str(trained / "seed-0"), "-i", "-", "--json"], input="w3 w4\nw5\n")
    assert json.loads(run.stdout) == rows


def test_without_texts_its_own_predictions_are_shown(trained):
    rows = data("predict", trained / "seed-0")
    assert len(rows) == 8
    assert set(rows[0]) == {"input", "gold", "predicted", "correct"}


def test_predicting_with_several_runs_asks_for_one(trained):
    assert "seed-0, seed-1" in refusal("predict", trained, "w3")


@pytest.mark.parametrize("content", [b"", b"\x80\xff", None])
def test_bad_inputs_are_refused_and_no_file_is_made(trained, tmp_path, content):
    path = tmp_path / "in.txt"
    if content is not None:
        path.write_bytes(content)
    assert "inputs" in refusal("predict", trained / "seed-0", "-i", path, "-o", tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()
    assert "not both" in refusal("predict", trained / "seed-0", "w3", "-i", path, code=2)


def test_a_run_and_an_experiment_are_inspected(trained):
    text = call("inspect", trained / "seed-0").stdout
    assert "verified" in text
    assert "lora(rank=2)" in text
    found = data("inspect", trained / "seed-0")
    assert found["kind"] == "run"
    assert found["attachment"]["verified"] is True
    assert found["result"]["seed"] == found["seed"] == 0
    assert "2 runs in" in call("inspect", trained).stdout
    assert [run["seed"] for run in data("inspect", trained)["runs"]] == [0, 1]


def test_an_unfinished_run_is_said_to_be_so(unfinished):
    assert "not finished" in call("inspect", unfinished).stdout
    assert data("inspect", unfinished)["result"] is None
    assert "not finished" in refusal("evaluate", unfinished)
    assert "not finished" in refusal("predict", unfinished)


@pytest.mark.parametrize("verb", ["evaluate", "predict", "inspect"])
@pytest.mark.parametrize("damage", ["metrics.json", "recipe.yaml", "adapter/unipetl.json"])
def test_a_damaged_run_is_refused(trained, tmp_path, verb, damage):
    if verb == "predict" and damage.startswith("adapter"):
        verb = "evaluate"
    shutil.copytree(trained / "seed-0", tmp_path / "run")
    (tmp_path / "run" / damage).write_bytes(b"\x80{")
    assert "error: " in refusal(verb, tmp_path / "run")


@pytest.mark.parametrize("verb", ["evaluate", "predict"])
def test_what_is_no_run_is_refused(tmp_path, verb):
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "nowhere", tmp_path / "file"):
        assert "is no run" in refusal(verb, path)


def test_standard_input_may_be_empty(trained, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert "no inputs" in refusal("predict", trained / "seed-0", "-i", "-")
