"""A comparison isolates its runs, goes on where it was interrupted, and keeps what failed beside what did not."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from experiment.toy_task import parity, with_the_tests
from unipetl.errors import RecipeError, RunError, TaskError
from unipetl.experiment import ComparePlan, compare, load_plan, report, run
from unipetl.experiment.comparing import failure_file, run_directory
from unipetl.experiment.plot import draw

TASKS = {name: f"experiment.toy_task:{name}" for name in ("parity", "backwards", "slow")}
TRAINING = {
    "max_steps": 3,
    "per_device_train_batch_size": 4,
    "save_strategy": "no",
    "logging_steps": 1,
    "use_cpu": True,
}


@pytest.fixture(autouse=True)
def reachable(monkeypatch):
    """Worker processes find the toy tasks."""
    monkeypatch.setenv("PYTHONPATH", with_the_tests())


def plan(**more):
    methods = {"zero-shot": "none", "LoRA": "lora(rank=2)", "full": {"method": "full", "training": {"max_steps": 2}}}
    return ComparePlan(**{"tasks": ["parity"], "methods": methods, "seeds": [0, 1], "training": TRAINING, **more})


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.slow
def test_a_comparison_is_a_table_per_task_and_is_not_made_twice(tmp_path):
    events = []
    whole = plan(tasks=["parity", "backwards"])
    found = compare(whole, tmp_path / "out", jobs=2, progress=events.append, tasks=TASKS)
    assert [table.task for table in found.tables] == ["parity", "backwards"]
    assert found.failures == ()
    assert found.missing == 0
    table = found.tables[0]
    assert [row.label for row in table.rows] == ["zero-shot", "LoRA", "full"]
    zero, lora, full = table.rows
    assert (zero.parameters, zero.train_seconds) == (0, 0)
    assert 0 < lora.parameters < full.parameters == table.base_parameters
    assert set(lora.scores) == {0, 1}
    assert lora.mean == pytest.approx(sum(lora.scores.values()) / 2)
    assert lora.std == pytest.approx(abs(lora.scores[0] - lora.scores[1]) / 2**0.5)
    assert lora.train_seconds > 0
    assert lora.peak_memory_bytes > 50e6
    assert [event.state for event in events].count("finished") == 12
    assert {event.run.phase for event in events if event.run} >= {"prepare", "train", "evaluate"}
    assert (events[-1].done, events[-1].total) == (12, 12)

    written = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert written["tables"][0]["rows"][1]["mean"] == lora.mean
    text = (tmp_path / "out" / "comparison.md").read_text()
    assert f"| LoRA | {lora.parameters:,} |" in text
    assert (tmp_path / "out" / "comparison.png").read_bytes().startswith(b"\x89PNG")
    left = [path.name for path in (tmp_path / "out" / "runs").rglob("*") if path.suffix in (".txt", ".tmp")]
    assert left == []

    again = []
    assert compare(whole, tmp_path / "out", progress=again.append, tasks=TASKS) == found
    assert {event.state for event in again} == {"done before"}

    longer = plan(tasks=["parity", "backwards"], seeds=[0, 1, 2])
    more = compare(longer, tmp_path / "out", progress=again.append, tasks=TASKS)
    assert [event.seed for event in again if event.state == "finished"] == [2] * 6
    assert len(more.tables[0].rows[1].scores) == 3


@pytest.mark.slow
def test_a_run_of_a_comparison_is_the_run_alone(tmp_path):
    small = plan(methods={"LoRA": "lora(rank=2)"}, seeds=[4])
    row = compare(small, tmp_path / "out", tasks=TASKS).tables[0].rows[0]
    cell = next(small.cells())
    alone = run(cell.recipe, 4, tmp_path / "alone", task=parity)
    assert alone.score == row.scores[4]
    files = [run_directory(tmp_path / "out", cell, 4), tmp_path / "alone"]
    # tensor by tensor: safetensors writes a header's metadata in an order that changes from file to file
    there, here = (load_file(one / "adapter" / "unipetl.safetensors") for one in files)
    assert list(there) == list(here)
    assert all(torch.equal(there[name], here[name]) for name in there)


def test_what_fails_is_kept_with_its_reason(tmp_path):
    methods = {"impossible": "lora(rank=2, at='ffn.gate')", "LoRA": "lora(rank=2)"}
    broken = plan(methods=methods, seeds=[0])
    events = []
    found = compare(broken, tmp_path, progress=events.append, tasks=TASKS)
    assert [row.label for row in found.tables[0].rows] == ["LoRA"]
    (failure,) = found.failures
    assert (failure.label, failure.error) == ("impossible", "PlanError")
    assert "ffn.gate" in failure.message
    assert "impossible, seed 0: PlanError" in (tmp_path / "comparison.md").read_text()
    assert next(event.message for event in events if event.state == "failed").startswith("PlanError: ")
    assert (events[-1].done, events[-1].failed) == (1, 1)
    assert report(tmp_path) == found

    assert failure_file(run_directory(tmp_path, next(broken.cells()), 0)).is_file()


@pytest.mark.slow
def test_a_killed_run_fails_alone(tmp_path, monkeypatch):
    gate = tmp_path / "gate"
    gate.touch()
    monkeypatch.setenv("TOY_TASK_WAITS_FOR", str(gate))
    small = plan(tasks=["slow", "parity"], methods={"zero-shot": "none"}, seeds=[0])

    def kill(event):
        if event.run and event.run.phase == "prepare" and event.task == "slow":
            os.kill(child_of_worker(), signal.SIGKILL)

    found = compare(small, tmp_path / "out", progress=kill, tasks=TASKS)
    (failure,) = found.failures
    assert (failure.task, failure.error) == ("slow", "Killed")
    assert "SIGKILL" in failure.message
    assert [table.task for table in found.tables] == ["parity"]
    gate.unlink()
    healed = compare(small, tmp_path / "out", tasks=TASKS)
    assert healed.failures == ()
    assert [table.task for table in healed.tables] == ["slow", "parity"]


def workers(parent):
    """The processes that `parent` started, by the system's list."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == parent and fields[0] != "Z":
            found.append(int(status.parent.name))
    return found


def child_of_worker():
    return next(child for worker in workers(os.getpid()) for child in workers(worker))


@pytest.mark.slow
def test_an_interrupted_comparison_ends_its_processes_and_goes_on(tmp_path, monkeypatch):
    gate = tmp_path / "gate"
    gate.touch()
    monkeypatch.setenv("TOY_TASK_WAITS_FOR", str(gate))
    small = plan(tasks=["parity", "slow"], methods={"zero-shot": "none", "LoRA": "lora(rank=2)"}, seeds=[0])
    seen = []

    def interrupt(event):
        if event.run and event.run.phase == "prepare" and event.task == "slow" and not seen:
            seen.extend([*workers(os.getpid()), child_of_worker()])
            threading.Timer(0.3, os.kill, [os.getpid(), signal.SIGINT]).start()

    with pytest.raises(KeyboardInterrupt):
        compare(small, tmp_path / "out", progress=interrupt, tasks=TASKS)
    patience = time.monotonic() + 10
    while any(alive(pid) for pid in seen) and time.monotonic() < patience:
        time.sleep(0.02)
    assert len(seen) == 2
    assert not any(alive(pid) for pid in seen)
    assert not list((tmp_path / "out").rglob("*.failed.json"))

    gate.unlink()
    events = []
    found = compare(small, tmp_path / "out", progress=events.append, tasks=TASKS)
    assert [event.state for event in events if event.run is None].count("done before") == 2
    assert found.missing == 0
    assert all(len(table.rows) == 2 for table in found.tables)


def made_here(whole, folder):
    """The runs of a plan, made without worker processes."""
    for cell in whole.cells():
        for seed in whole.seeds:
            run(cell.recipe, seed, run_directory(folder, cell, seed), task=parity)
    whole.save(folder / "plan.yaml")
    return folder


def test_the_tables_come_from_the_runs(tmp_path):
    whole = plan()
    missing = report(made_here(whole, tmp_path), plan(seeds=[0, 1, 2])).missing
    assert missing == 3
    found = report(tmp_path)
    zero, lora, full = found.tables[0].rows
    assert (zero.parameters, zero.train_seconds) == (0, 0)
    assert 0 < lora.parameters < full.parameters == found.tables[0].base_parameters
    assert lora.mean == pytest.approx(sum(lora.scores.values()) / 2)
    assert lora.std == pytest.approx(abs(lora.scores[0] - lora.scores[1]) / 2**0.5)
    text = (tmp_path / "comparison.md").read_text()
    assert f"| LoRA | {lora.parameters:,} |" in text
    assert "| zero-shot | 0 |" in text  # as the plan writes it; only folders are called zero_shot-...
    assert json.loads((tmp_path / "comparison.json").read_text())["tables"][0]["rows"][1]["mean"] == lora.mean
    assert (tmp_path / "comparison.png").read_bytes().startswith(b"\x89PNG")

    events = []
    assert compare(whole, tmp_path, progress=events.append) == found
    assert {event.state for event in events} == {"done before"}

    (run_directory(tmp_path, next(whole.cells()), 1) / "metrics.json").write_text("{")
    damaged = report(tmp_path)
    assert len(damaged.tables[0].rows[0].scores) == 1
    assert damaged.tables[0].rows[0].std is None
    assert "metrics.json' is damaged" in damaged.failures[0].message


def test_models_are_a_part_of_the_grid(tmp_path):
    methods = {"zero-shot": "none", "LoRA": "lora(rank=2)"}
    tasks = {"parity": {}, "backwards": {"model": "its own"}}
    whole = plan(methods=methods, seeds=[0], tasks=tasks, models=["small", "large"])
    grid = [(cell.title, cell.label, cell.recipe.model) for cell in whole.cells()]
    assert grid == [
        ("parity, small", "zero-shot", "small"),
        ("parity, small", "LoRA", "small"),
        ("parity, large", "zero-shot", "large"),
        ("parity, large", "LoRA", "large"),
        ("backwards", "zero-shot", "its own"),
        ("backwards", "LoRA", "its own"),
    ]
    assert len({cell.folder() for cell in whole.cells()}) == 6
    only = plan(methods=methods, seeds=[0], models=["small", "large"])
    found = report(made_here(only, tmp_path))
    assert [(table.task, len(table.rows)) for table in found.tables] == [("parity, small", 2), ("parity, large", 2)]
    assert load_plan(tmp_path / "plan.yaml", tasks=["parity"]) == only
    with pytest.raises(RecipeError, match=r"models.1: expected a folder or a name on the hub, once; found 'small'"):
        plan(models=["small", "small"])


def test_a_diverged_run_counts_in_no_mean(tmp_path):
    whole = plan(methods={"LoRA": "lora(rank=2)"})
    made_here(whole, tmp_path)
    path = run_directory(tmp_path, next(whole.cells()), 1) / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"score": None}))
    found = report(tmp_path)
    assert set(found.tables[0].rows[0].scores) == {0}
    assert "not a number" in found.failures[0].message


def test_a_directory_keeps_its_comparison(tmp_path):
    whole = plan(methods={"zero-shot": "none", "LoRA": "lora(rank=2)"}, seeds=[0])
    made_here(whole, tmp_path)
    text = "# by hand\n" + (tmp_path / "plan.yaml").read_text()
    (tmp_path / "plan.yaml").write_text(text)
    others = {
        "LoRA": {"methods": {"zero-shot": "none", "LoRA": "lora(rank=3)"}},
        "zero-shot": {"methods": {"LoRA": "lora(rank=2)"}},
        "parity": {"tasks": ["backwards"]},
        "seed 0": {"seeds": [1]},
    }
    for first, change in others.items():
        other = plan(**{"methods": dict(whole.methods), "seeds": [0], **change})
        with pytest.raises(RunError, match=f"holds another comparison .* first is .*{first}.* another directory"):
            compare(other, tmp_path, tasks=TASKS)
        assert (tmp_path / "plan.yaml").read_text() == text
    compare(whole, tmp_path)
    assert (tmp_path / "plan.yaml").read_text() == text

    events = []
    fewer = plan(methods={"zero-shot": "none"}, seeds=[0])
    assert compare(fewer, tmp_path, replace=True, progress=events.append).missing == 0
    assert [event.state for event in events] == ["done before"]
    assert load_plan(tmp_path / "plan.yaml", tasks=None) == fewer
    more = plan(methods={"LoRA": "lora(rank=2)", "zero-shot": "none"}, seeds=[0], name="more")
    assert compare(more, tmp_path, progress=events.append).missing == 0
    assert {event.state for event in events} == {"done before"}
    assert load_plan(tmp_path / "plan.yaml", tasks=None) == more


def test_what_failed_may_be_mended_in_the_plan(tmp_path):
    broken = plan(methods={"zero-shot": "none", "LoRA": "lora(rank=2, at='ffn.gate')"}, seeds=[0])
    made = plan(methods={"zero-shot": "none"}, seeds=[0])
    made_here(made, tmp_path)
    broken.save(tmp_path / "plan.yaml")
    failed = failure_file(run_directory(tmp_path, list(broken.cells())[1], 0))
    failed.parent.mkdir()
    failed.write_text('{"error": "PlanError", "message": "no such place"}')
    assert compare(made, tmp_path).failures == ()
    assert load_plan(tmp_path / "plan.yaml", tasks=None) == made


def test_a_comparison_wants_a_directory_of_its_own(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(RunError, match="not empty and holds no comparison"):
        compare(plan(), tmp_path)
    with pytest.raises(RunError, match="jobs: expected a positive number"):
        compare(plan(), tmp_path / "out", jobs=0)
    with pytest.raises(RunError, match="is no comparison"):
        report(tmp_path)


def test_a_directory_has_one_comparison_at_a_time(tmp_path):
    whole = plan(methods={"zero-shot": "none"}, seeds=[0])
    made_here(whole, tmp_path)
    refused = []

    def second(event):
        with pytest.raises(RunError, match=f"in use by process {os.getpid()} on "):
            compare(whole, tmp_path)
        refused.append(event)

    compare(whole, tmp_path, progress=second)
    assert len(refused) == 1
    assert compare(whole, tmp_path).missing == 0
    assert ".lock" not in {path.name for path in tmp_path.iterdir()}


def test_an_unknown_task_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(TaskError, match=r"unknown task 'pronunce'\. Did you mean 'pronounce'"):
        compare(plan(tasks=["parity", "pronunce"]), tmp_path / "out", tasks=TASKS)
    assert not (tmp_path / "out").exists()


def test_the_picture_is_drawn_for_one_method_as_well(tmp_path):
    found = report(made_here(plan(methods={"zero-shot": "none"}, seeds=[0]), tmp_path / "out"))
    assert draw(found, tmp_path / "one.png").stat().st_size > 5000
