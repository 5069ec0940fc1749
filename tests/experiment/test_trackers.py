"""What a recipe says of `report_to` reaches transformers as it is, and its trackers are told what was logged."""

from __future__ import annotations

import pytest
from transformers import TrainerCallback
from transformers.integrations import integration_utils

from experiment.toy_task import backwards, parity
from unipetl.experiment import Recipe, run

TRAINING = {
    "max_steps": 3,
    "per_device_train_batch_size": 4,
    "save_strategy": "no",
    "logging_steps": 1,
    "use_cpu": True,
}


class Tracker(TrainerCallback):
    """A tracker as transformers knows them."""

    told: list

    def setup(self, args, state, model, **kwargs):
        self.told.append(("setup", list(args.report_to)))

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.setup(args, state, model)

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.told.append((state.global_step, sorted(logs)))


@pytest.fixture
def tracker(monkeypatch):
    Tracker.told = []
    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "planted", Tracker)
    return Tracker.told


@pytest.mark.parametrize("task", [parity, backwards], ids=lambda task: task.name)
@pytest.mark.parametrize("report_to", ["planted", ["planted"]])
def test_a_tracker_is_told_what_is_logged(tmp_path, tracker, task, report_to):
    recipe = Recipe(task=task.name, method="lora(rank=2)", training={**TRAINING, "report_to": report_to})
    run(recipe, 0, tmp_path / "run", task=task)
    assert tracker[0] == ("setup", ["planted"])
    losses = [step for step, names in tracker[1:] if "loss" in names]
    assert losses == [1, 2, 3]


def test_nothing_is_reported_unless_it_is_asked_for(tmp_path, tracker, monkeypatch):
    monkeypatch.setattr(integration_utils, "get_available_reporting_integrations", lambda: ["planted"])
    run(Recipe(task="parity", method="lora(rank=2)", training=TRAINING), 0, tmp_path / "run", task=parity)
    assert tracker == []


@pytest.mark.slow
def test_tensorboard_gets_its_file(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    recipe = Recipe(task="parity", method="lora(rank=2)", training={**TRAINING, "report_to": "tensorboard"})
    run(recipe, 0, tmp_path / "run", task=parity)
    (events,) = (tmp_path / "board").rglob("events.out.tfevents.*")
    assert b"train/loss" in events.read_bytes()
