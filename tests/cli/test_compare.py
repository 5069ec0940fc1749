from __future__ import annotations

import io
import sys
import time
from dataclasses import replace

import pytest
import yaml

import unipetl.tasks
from cli.calling import call, data, refusal
from cli.tiny_task import TINY
from experiment.toy_task import with_the_tests
from unipetl.cli import watching
from unipetl.experiment import Progress, comparing, demo, load_plan
from unipetl.experiment.table import Comparison, Failure, Row, Table

pytestmark = pytest.mark.usefixtures("tiny")
PLAN = """
name: parity
tasks: [tiny]
methods: {LoRA: lora(rank=2), wrong: lora(at='ffn.gate')}
seeds: [0, 1]
training: {max_steps: 2, per_device_train_batch_size: 4, use_cpu: true}
"""


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """A finished comparison, in which one method makes no sense, and what the command said."""
    folder = tmp_path_factory.mktemp("compared")
    (folder / "plan.yaml").write_text(PLAN)
    right = comparing.compare
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", with_the_tests())
        patch.setattr(unipetl.tasks, "TASKS", (*unipetl.tasks.TASKS, TINY))
        tasks = {"tiny": "cli.tiny_task:TINY"}
        patch.setattr(comparing, "compare", lambda *args, **named: right(*args, **named, tasks=tasks))
        result = call("compare", folder / "plan.yaml", "-o", folder / "out", "--jobs", 2, code=1)
    return folder / "out", result


@pytest.mark.slow
def test_a_comparison_runs(compared):
    folder, result = compared
    assert "tiny: accuracy, higher is better" in result.stdout
    assert "\nLoRA " in result.stdout
    for name in ("comparison.json", "comparison.md", "comparison.png"):
        assert name in result.stdout
        assert (folder / name).is_file()


@pytest.mark.slow
def test_failures_are_told_with_their_reason_and_how_to_go_on(compared):
    folder, result = compared
    assert "[4/4]" in result.stderr
    assert "failed: tiny, wrong, seed 0: PlanError: modified representation 'ffn.gate'" in result.stderr
    assert f"2 runs failed. `unipetl compare {folder}` goes on" in result.stderr


@pytest.mark.slow
def test_a_comparison_is_inspected(compared):
    folder, _ = compared
    found = data("inspect", folder)
    assert found["kind"] == "comparison"
    assert [row["label"] for row in found["tables"][0]["rows"]] == ["LoRA"]
    assert len(found["failures"]) == 2
    assert "parity" in call("inspect", folder).stdout


@pytest.fixture
def told(monkeypatch):
    """Let nothing run; return what compare was asked for."""
    asked = []

    def compare(plan, directory, *, jobs, progress, replace, ray):
        asked.append({"plan": plan, "directory": directory, "jobs": jobs, "replace": replace, "ray": ray})
        return Comparison(directory, plan.name, (), (), 0)

    monkeypatch.setattr(comparing, "compare", compare)
    return asked


def test_a_directory_is_gone_on_with(told, tmp_path):
    (tmp_path / "plan.yaml").write_text(PLAN)
    assert data("compare", tmp_path)["failures"] == []
    usual = {"plan": load_plan(tmp_path / "plan.yaml"), "directory": tmp_path, "jobs": 1, "replace": False, "ray": None}
    assert told == [usual]
    call("compare", tmp_path, "--replace")
    call("compare", tmp_path, "--ray", "auto")
    assert told[1:] == [{**usual, "replace": True}, {**usual, "ray": "auto"}]


def test_methods_stand_side_by_side_and_a_failure_is_exit_code_one(monkeypatch, tmp_path):
    row = Row("LoRA", "lora(rank=2)", 1234, 0.005, 1200, {0: 0.5, 1: 0.75}, 0.625, 0.1768, 61.0, 440_000_000)
    tables = (Table("tiny", "accuracy", True, 246_800, (row, replace(row, label="full fine-tuning", std=None))),)
    failures = (Failure("tiny", "wrong", 0, "PlanError", "it makes no sense", "runs/tiny/wrong/seed-0"),)
    found = Comparison(tmp_path, "parity", tables, failures, 3)
    monkeypatch.setattr(comparing, "compare", lambda *_, **__: found)
    (tmp_path / "plan.yaml").write_text(PLAN)
    result = call("compare", tmp_path, code=1)
    lines = [line.split() for line in result.stdout.splitlines()]
    assert [
        "LoRA",
        "1,234",
        "0.500",
        "%",
        "1,200",
        "0.62",
        "±",
        "0.18",
        "2",
        "1",
        "min",
        "01",
        "s",
        "420",
        "MiB",
    ] in lines
    assert [
        "full",
        "fine-tuning",
        "1,234",
        "0.500",
        "%",
        "1,200",
        "0.62",
        "2",
        "1",
        "min",
        "01",
        "s",
        "420",
        "MiB",
    ] in lines
    assert "Not made yet: 3 runs." in result.stdout
    assert "failed: tiny, wrong, seed 0: PlanError: it makes no sense" in result.stderr
    assert data("compare", tmp_path, code=1)["failures"][0]["label"] == "wrong"


def test_lines_tell_how_it_goes(capsys):
    event = comparing.CompareProgress("tiny", "LoRA", 0, "finished", 2, 1, 4)
    with watching.compared() as listen:
        for state in ("done before", "started", "running", "finished"):
            listen(replace(event, state=state))
        listen(replace(event, state="failed", message="no"))
    assert capsys.readouterr().err == "[3/4] finished: tiny, LoRA, seed 0\n[3/4] failed: tiny, LoRA, seed 0: no\n"


def test_a_terminal_gets_bars(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    event = comparing.CompareProgress("tiny", "LoRA", 0, "started", 0, 0, 4)
    with watching.compared() as listen:
        listen(event)
        listen(replace(event, state="running", run=Progress("train", 1, 2, {"loss": 0.25})))
        time.sleep(0.2)
        listen(replace(event, state="finished", done=1))
    shown = terminal.getvalue()
    assert "tiny, LoRA, seed 0: training" in shown
    assert "loss 0.2500" in shown


def test_the_demo_has_a_directory_and_a_job_per_core(told, monkeypatch, tmp_path):
    (tmp_path / "plan.yaml").write_text(PLAN)
    plan = load_plan(tmp_path / "plan.yaml")
    monkeypatch.setattr(demo, "demo_plan", lambda quick: plan.model_copy(update={"name": f"quick: {quick}"}))
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    call("compare", "--demo", "--quick")
    call("compare", "--demo", "--jobs", 1, "-o", tmp_path / "out")
    assert [(str(one["directory"]), one["jobs"], one["plan"].name, one["replace"]) for one in told] == [
        ("runs/demo-quick", 4, "quick: True", True),
        (str(tmp_path / "out"), 1, "quick: False", False),
    ]


def test_a_dry_run_runs_nothing(told, tmp_path):
    (tmp_path / "plan.yaml").write_text(PLAN)
    assert "4 runs in" in call("compare", tmp_path / "plan.yaml", "--dry-run").stdout
    found = data("compare", tmp_path / "plan.yaml", "--dry-run")
    assert (found["runs"], found["path"]) == (4, "runs/plan")
    assert told == []


def test_an_interruption_says_how_to_go_on(told, monkeypatch, tmp_path):
    def compare(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(comparing, "compare", compare)
    (tmp_path / "plan.yaml").write_text(PLAN)
    message = refusal("compare", tmp_path / "plan.yaml", "-o", tmp_path / "out", code=130)
    assert message == f"interrupted. `unipetl compare {tmp_path / 'out'}` goes on with what is missing.\n"


@pytest.mark.parametrize("args", [[], ["plan.yaml", "--demo"], ["plan.yaml", "--quick"], ["plan.yaml", "--jobs", "0"]])
def test_wrong_usage(args):
    assert "Error" in refusal("compare", *args, code=2)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"methods": {"LoRA": "loro"}}, ["plan.yaml:", "Did you mean 'lora'"]),
        ({"tasks": ["tinny"]}, ["plan.yaml:", "tasks.0: unknown task 'tinny'. Did you mean 'tiny'"]),
        ({"tsks": ["tiny"]}, ["plan.yaml:", "Did you mean 'tasks'"]),
        ({"seeds": [-1]}, ["seeds"]),
        ({"training": {"max_step": 3}}, ["Did you mean 'max_steps'"]),
    ],
)
def test_bad_plans_are_refused_and_leave_nothing(tmp_path, change, parts):
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(PLAN) | change))
    message = refusal("compare", path, "-o", tmp_path / "out")
    assert [part for part in parts if part not in message] == []
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [b"", b"\x80\xff", b"[1"])
def test_files_that_are_no_plans_are_refused(tmp_path, content):
    (tmp_path / "plan.yaml").write_bytes(content)
    assert "plan.yaml" in refusal("compare", tmp_path / "plan.yaml", "-o", tmp_path / "out")
    assert "plan.yaml" in refusal("inspect", tmp_path)
    assert not (tmp_path / "out").exists()


def test_another_comparison_is_left_alone(tmp_path):
    (tmp_path / "out").mkdir()
    there = "# mine\n" + PLAN
    (tmp_path / "out" / "plan.yaml").write_text(there)
    (tmp_path / "plan.yaml").write_text(PLAN.replace("rank=2", "rank=3"))
    message = refusal("compare", tmp_path / "plan.yaml", "-o", tmp_path / "out")
    for part in ("another comparison (parity: 2 methods on tiny)", "2 of its 4 runs", "LoRA, seed 0", "--replace"):
        assert part in message
    assert (tmp_path / "out" / "plan.yaml").read_text() == there


def test_missing_plans_and_other_folders_are_refused(tmp_path):
    assert "nowhere.yaml" in refusal("compare", tmp_path / "nowhere.yaml")
    assert "no plan.yaml" in refusal("compare", tmp_path)
