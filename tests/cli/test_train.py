from __future__ import annotations

import json

import pytest
import yaml

from cli.calling import call, data, refusal
from cli.conftest import QUICK
from unipetl import parse
from unipetl.experiment import running
from unipetl.experiment.directory import RunDirectory

pytestmark = pytest.mark.usefixtures("tiny")
TINY = ("-t", "tiny", "-x", "lora(rank=2)", *QUICK)


def test_a_run_per_seed_and_a_table(tmp_path):
    result = call("train", *TINY, "--seed", 3, "--seed", 5, "-o", tmp_path / "out")
    assert "accuracy" in result.stdout
    assert "mean" in result.stdout
    assert "tiny, seed 5: training, 4 steps" in result.stderr
    for seed in (3, 5):
        assert RunDirectory(tmp_path / "out" / f"seed-{seed}").result().seed == seed


def test_the_same_command_shows_what_is_finished(trained, monkeypatch):
    monkeypatch.setattr(running, "_Run", None)  # nothing may be computed again
    found = data("train", *TINY, "--seed", 0, "--seed", 1, "-o", trained)
    assert [run["seed"] for run in found["runs"]] == [0, 1]
    assert found["runs"][0]["parameters"] > 0
    assert found["recipe"]["method"] == "lora(rank=2)"


def test_an_interrupted_run_says_how_to_go_on_and_goes_on(tmp_path, monkeypatch):
    steps = []

    def interrupt(self, *args, **kwargs):
        steps.append(args[1].global_step)
        if len(steps) == 3:
            raise KeyboardInterrupt

    args = ("train", *TINY, "--set", "training.save_steps=1", "-o", tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(running.Log, "on_step_end", interrupt)
        result = call(*args, code=130)
    assert "The same command goes on" in result.stderr
    assert result.stdout == ""
    (run,) = data(*args)["runs"]
    assert run["steps"] == 4
    log = (tmp_path / "out" / "seed-0" / "log.jsonl").read_text().splitlines()
    assert [row["checkpoint"] for row in map(json.loads, log) if "checkpoint" in row] == [1, 2, 3, 4]


def test_options_win_over_the_file_and_settings_over_both(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("task: tiny\nmethod: mam\nseeds: [0, 1]\ntraining: {learning_rate: 1e-3, max_steps: 9}\n")
    found = data("train", path, "-x", "lora", "--limit", 5, "--set", "training.max_steps=2", "--dry-run")
    assert (found["method"], found["limit"], found["seeds"]) == ("lora", 5, [0, 1])
    assert found["training"] == {"learning_rate": 1e-3, "max_steps": 2}
    shown = yaml.safe_load(call("train", path, "--set", "limit=7", "--no-train-head", "--dry-run").stdout)
    assert (shown["limit"], shown["train_head"]) == (7, False)


def test_options_of_the_task_are_set_one_by_one(tmp_path, monkeypatch):
    monkeypatch.undo()  # the real tasks, not the tiny one
    path = tmp_path / "recipe.yaml"
    path.write_text("task: xsum\nmethod: lora\noptions: {train: a.csv, dev_cap: 3}\n")
    settings = ("--set", "options.dev_cap=5", "--set", "options.generation={num_beams: 2}")
    found = data("train", path, *settings, "--dry-run")["options"]
    assert found == {"train": "a.csv", "dev_cap": 5, "generation": {"num_beams": 2}}
    path.write_text("task: xsum\nmethod: lora\noptions:\n  dev_cap: 3\n  trian: a.csv\n")
    assert "recipe.yaml:5: options: task 'xsum' has no option 'trian'. Did you mean 'train'?" in refusal("train", path)


def test_data_that_is_wrong_is_named_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.undo()  # the real tasks, not the tiny one
    (tmp_path / "a.csv").write_bytes("text,label\nfilm,1\nbr\xe9f,0\n".encode("latin1"))
    args = ("train", "-t", "csv-classification", "-m", "none", "-x", "lora", "-o", tmp_path / "out")
    assert "line 3: byte 3 (0xe9) is not UTF-8" in refusal(*args, "--set", f"options.train={tmp_path / 'a.csv'}")
    assert "has no option 'trian'. Did you mean 'train'" in refusal(*args, "--set", "options.trian=a")
    assert not (tmp_path / "out").exists()


def test_a_method_file_is_taken_in(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(parse("lora(rank=3)").to_yaml())
    assert data("train", "-t", "tiny", "-x", path, "--dry-run")["method"] == parse("lora(rank=3)").plain()


def test_the_default_directory_is_the_recipes_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = data("train", *TINY)["directory"]
    assert first.startswith("runs/tiny-lora-rank-2-")
    assert RunDirectory(tmp_path / first / "seed-0").result() is not None


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (["-t", "tinny", "-x", "lora"], ["unknown task 'tinny'", "Did you mean 'tiny'"]),
        (["-t", "tinny", "-x", "lora", "--dry-run"], ["unknown task 'tinny'", "Did you mean 'tiny'"]),
        (["-t", "tiny", "-x", "loro"], ["method", "Did you mean 'lora'"]),
        (["-t", "tiny", "-x", "lora(ranc=1)"], ["Did you mean 'rank'"]),
        (["-t", "tiny", "-x", "lora(at='ffn.gate')"], ["ffn.gate"]),
        (["-t", "tiny", "-x", "lora", "--set", "training.learning_rat=1"], ["Did you mean 'learning_rate'"]),
        (["-t", "tiny", "-x", "lora", "--set", "training.learning_rate=fast"], ["learning_rate", "'fast'"]),
        (["-t", "tiny", "-x", "lora", "--set", "sedes=[0]"], ["Did you mean 'seeds'"]),
        (["-t", "tiny", "-x", "lora", "--seed", "-1"], ["seeds", "-1"]),
        (["-t", "tiny", "-x", "lora", "--limit", "0"], ["limit"]),
        (["-t", "tiny", "-x", "lora", "--set", "limit=[[["], ["limit"]),
        (["-t", "tiny", "-x", "lora", "--set", "training=3"], ["training"]),
        (["-t", "tiny", "-x", "lora", "--set", "training=3", "--set", "training.max_steps=2"], ["training"]),
    ],
)
def test_bad_input_is_refused_and_leaves_nothing(tmp_path, args, parts):
    message = refusal("train", *args, "-o", tmp_path / "runs" / "out")
    assert [part for part in parts if part not in message] == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("args", [["-x", "lora"], ["-t", "tiny"], [], ["-t", "tiny", "-x", "lora", "--set", "limit"]])
def test_what_is_missing_is_usage(tmp_path, args):
    assert "Error" in refusal("train", *args, code=2)


@pytest.mark.parametrize(
    "content", [b"", b"\x80\x81\xff", b"a: [1", b"- 1", b"task: tiny", b"task: tiny\nmehtod: lora"]
)
def test_bad_recipes_are_refused_with_their_name(tmp_path, content):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    assert str(path) in refusal("train", path, "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_missing_recipes_and_folders_are_refused(tmp_path):
    assert "nowhere.yaml" in refusal("train", tmp_path / "nowhere.yaml")
    assert str(tmp_path) in refusal("train", tmp_path)


def test_somebody_elses_directory_is_left_alone(tmp_path):
    (tmp_path / "seed-0").mkdir()
    (tmp_path / "seed-0" / "mine.txt").write_text("mine")
    assert "not empty" in refusal("train", *TINY, "-o", tmp_path)
    assert [one.name for one in (tmp_path / "seed-0").iterdir()] == ["mine.txt"]
    (tmp_path / "file").write_text("")
    assert "file" in refusal("train", *TINY, "-o", tmp_path / "file")


def test_another_recipes_run_is_left_alone(trained):
    before = (trained / "seed-0" / "metrics.json").read_bytes()
    assert "another recipe" in refusal("train", "-t", "tiny", "-x", "lora(rank=3)", *QUICK, "-o", trained)
    assert (trained / "seed-0" / "metrics.json").read_bytes() == before
