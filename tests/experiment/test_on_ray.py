"""A comparison on a Ray cluster of two nodes has the files of a local one, also when a worker is killed."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from experiment.toy_task import with_the_tests
from unipetl.errors import MissingPackageError, RunError
from unipetl.experiment import ComparePlan, compare, on_ray
from unipetl.experiment.comparing import run_directory
from unipetl.experiment.recipe import Recipe
from unipetl.experiment.worker import Spec

TASKS = {name: f"experiment.toy_task:{name}" for name in ("parity", "slow")}
TRAINING = {
    "max_steps": 3,
    "per_device_train_batch_size": 4,
    "save_strategy": "no",
    "logging_steps": 1,
    "use_cpu": True,
}
METHODS = {"zero-shot": "none", "LoRA": "lora(rank=2)"}


def plan(**more):
    return ComparePlan(**{"tasks": ["parity"], "methods": METHODS, "seeds": [0], "training": TRAINING, **more})


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two nodes on this machine; their workers find the toy tasks."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", with_the_tests())
        patch.setenv("TOY_TASK_WAITS_FOR", str(tmp_path_factory.mktemp("gate") / "gate"))
        size = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
        made = Cluster(initialize_head=True, head_node_args={**size, "include_dashboard": False})
        made.add_node(**size)
        yield made
        made.shutdown()


def parent_of(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def ray_worker_of(run):
    """The Ray worker that works on a run: the lock names the run's process, whose grandparent it is."""
    run_process = int((run / ".lock").read_text().split()[1])
    return run_process, parent_of(parent_of(run_process))


def wait_until(ready, seconds=120):
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.filterwarnings("default")  # Ray leaves sockets for the garbage collector
def test_a_cluster_makes_what_this_machine_makes(cluster, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", with_the_tests())
    events = []
    methods = {**METHODS, "impossible": "lora(rank=2, at='ffn.gate')"}
    whole = plan(methods=methods)
    there = compare(whole, tmp_path / "there", tasks=TASKS, ray=cluster.address, progress=events.append)
    here = compare(whole, tmp_path / "here", tasks=TASKS)
    assert [row.scores for row in there.tables[0].rows] == [row.scores for row in here.tables[0].rows]
    assert [(one.label, one.error, one.message) for one in there.failures] == [
        (one.label, one.error, one.message) for one in here.failures
    ]
    names = [
        sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        for folder in (tmp_path / "there", tmp_path / "here")
    ]
    assert names[0] == names[1]
    for cell in list(whole.cells())[1:2]:
        runs = [run_directory(tmp_path / one, cell, 0) for one in ("there", "here")]
        tensors = [load_file(run / "adapter" / "unipetl.safetensors") for run in runs]
        assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[1])
    assert [event.state for event in events].count("finished") == 2
    again = []
    assert compare(plan(), tmp_path / "there", tasks=TASKS, ray=cluster.address, progress=again.append).failures == ()
    assert {event.state for event in again} == {"done before"}


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.filterwarnings("default")
def test_a_killed_workers_run_is_tried_again(cluster, tmp_path, monkeypatch):
    gate = Path(os.environ["TOY_TASK_WAITS_FOR"])
    gate.touch()
    small = plan(tasks=["slow"], methods={"LoRA": "lora(rank=2)"})
    run = run_directory(tmp_path / "out", next(small.cells()), 0)
    killed = []

    def kill():
        wait_until(lambda: (run / ".lock").is_file() and (run / ".lock").read_text())
        time.sleep(0.5)  # until the task waits for the gate
        process, worker = ray_worker_of(run)
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: not Path(f"/proc/{process}").exists())  # the run ends with its worker
        killed.append(worker)
        gate.unlink()

    watcher = threading.Thread(target=kill, daemon=True)
    watcher.start()
    found = compare(small, tmp_path / "out", tasks=TASKS, ray=cluster.address)
    watcher.join(10)
    assert killed
    assert found.failures == ()
    assert (found.missing, set(found.tables[0].rows[0].scores)) == (0, {0})
    left = [
        path.name for path in (tmp_path / "out" / "runs").rglob("*") if "spec" in path.name or "stderr" in path.name
    ]
    assert left == []


@pytest.mark.slow
def test_a_node_that_does_not_see_the_directory_sends_the_files(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", with_the_tests())
    monkeypatch.setattr(on_ray, "_threads", lambda: 1)
    recipe = Recipe(task="parity", method="lora(rank=2)", training=TRAINING)
    spec = Spec(recipe.resolved(), 0, str(tmp_path / "run"), str(tmp_path / "stderr.txt"), TASKS["parity"])
    path = tmp_path / "seed-0.spec.json"
    path.write_text(json.dumps(asdict(spec)))
    elsewhere = on_ray.work("/nowhere/seed-0.spec.json", path.read_text(), on_ray.unipetl.__version__)
    assert elsewhere.outcome.error is None, elsewhere.outcome
    assert not (tmp_path / "run").exists()
    on_ray._unpack(elsewhere.files, tmp_path / "run")
    names = {one.name for one in (tmp_path / "run").iterdir()}
    assert {"recipe.yaml", "metrics.json", "log.jsonl", "adapter", "predictions.jsonl", "environment.json"} <= names


def test_files_go_nowhere_else(tmp_path):
    with pytest.raises(RunError, match="outside the run's directory"):
        on_ray._unpack({"../evil": b""}, tmp_path / "run")
    on_ray._unpack({"metrics.json": b"1", "adapter/x": b"2"}, tmp_path / "run")
    assert on_ray._packed(tmp_path / "run") == {"adapter/x": b"2", "metrics.json": b"1"}


def test_another_version_on_a_node_is_refused(tmp_path):
    done = on_ray.work(str(tmp_path / "spec.json"), "{}", "0.0.0")
    assert done.outcome.error == "RunError"
    assert "comparison is made with 0.0.0" in done.outcome.message


def test_without_ray_the_message_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'unipetl\[ray\]'"):
        compare(plan(), tmp_path / "out", tasks=TASKS, ray="auto")
    assert not (tmp_path / "out").exists()
