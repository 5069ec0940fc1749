"""The tiny task, known by its name to every verb, and one finished run of it."""

from __future__ import annotations

import pytest

import unipetl.tasks
from cli.calling import call
from cli.tiny_task import TINY

QUICK = ("--set", "training.max_steps=4", "--set", "training.per_device_train_batch_size=4")


@pytest.fixture
def tiny(monkeypatch):
    """Let the task `tiny` be one of unipetl's."""
    monkeypatch.setattr(unipetl.tasks, "TASKS", (*unipetl.tasks.TASKS, TINY))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The directory of a finished experiment with two seeds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unipetl.tasks, "TASKS", (*unipetl.tasks.TASKS, TINY))
        folder = tmp_path_factory.mktemp("runs") / "first"
        call("train", "-t", "tiny", "-x", "lora(rank=2)", "--seed", 0, "--seed", 1, "-o", folder, *QUICK)
    return folder
