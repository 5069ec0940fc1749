"""A disk that is full while a run trains: nothing half-written counts, and the run goes on when there is room."""

from __future__ import annotations

import errno

import pytest
import torch

from experiment.toy_task import parity
from unipetl.errors import StorageError
from unipetl.experiment import Recipe, run, running

TRAINING = {"max_steps": 6, "per_device_train_batch_size": 4, "save_steps": 2, "use_cpu": True}
RECIPE = Recipe(task="parity", method="lora(rank=2)", training=TRAINING)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The score of a run that had room."""
    return run(RECIPE, 0, tmp_path_factory.mktemp("room") / "run", task=parity).score


def full(*args, **named):
    raise OSError(errno.ENOSPC, "No space left on device", "model.safetensors")


@pytest.mark.parametrize("where", ["save", "write_lines", "write_json"])
def test_a_full_disk_ends_the_run_and_a_later_one_finishes_it(tmp_path, monkeypatch, undisturbed, where):
    with monkeypatch.context() as patch:
        patch.setattr(running, where, full)
        with pytest.raises(OSError, match="No space left"):
            run(RECIPE, 0, tmp_path / "run", task=parity)
    assert not (tmp_path / "run" / "metrics.json").exists(), "a run without metrics is not done"
    again = run(RECIPE, 0, tmp_path / "run", task=parity)
    assert again.score == undisturbed


@pytest.mark.parametrize(
    ("checkpoint", "said"),
    [
        (1, "[enforce fail at inline_container.cc:664] . unexpected pos 704 vs 598\nframe #0: c10::ThrowEnforceNotMet"),
        (2, "PytorchStreamWriter failed writing file data/0: file write failed"),
    ],
)
def test_what_pytorchs_writer_says_of_a_full_disk_is_a_clear_error(
    tmp_path, monkeypatch, undisturbed, said, checkpoint
):
    whole, count = torch.save, []

    def save(*args, **named):
        count.append(args)
        if len(count) > 3 * (checkpoint - 1):  # optimizer, schedule and random states
            raise RuntimeError(said)
        whole(*args, **named)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", save)
        with pytest.raises(StorageError, match=r"cannot write a checkpoint in .*the disk is full") as caught:
            run(RECIPE, 0, tmp_path / "run", task=parity)
    assert said.splitlines()[0] in str(caught.value)
    assert "frame" not in str(caught.value)
    steps = []
    again = run(RECIPE, 0, tmp_path / "run", task=parity, progress=lambda event: steps.append(event.step))
    assert min(step for step in steps if step) == (1 if checkpoint == 1 else 3)
    assert again.score == undisturbed


def test_another_error_while_a_checkpoint_is_written_stays_what_it_is(tmp_path, monkeypatch):
    def save(*args, **named):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        run(RECIPE, 0, tmp_path / "run", task=parity)


def test_a_checkpoint_that_the_disk_cut_off_is_passed_over(tmp_path, monkeypatch, undisturbed):
    whole, count = torch.save, []

    def save(*args, **named):
        count.append(args)
        if len(count) > 2:  # the second checkpoint's optimizer
            full()
        whole(*args, **named)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", save)
        with pytest.raises(OSError, match="No space left"):
            run(RECIPE, 0, tmp_path / "run", task=parity)
    again = run(RECIPE, 0, tmp_path / "run", task=parity)
    assert again.score == undisturbed
