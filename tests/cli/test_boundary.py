"""Errors end in messages and exit codes; tracebacks are for --debug."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from cli.calling import call, process, refusal
from unipetl import notation
from unipetl.errors import MethodError


def planted(monkeypatch, error):
    def parse(text):
        raise error

    monkeypatch.setattr(notation, "parse", parse)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MethodError("wrong rank"), "error: wrong rank\n"),
        (PermissionError(13, "Permission denied", "secret.yaml"), "error: 'secret.yaml': Permission denied.\n"),
        (OSError(28, "No space left on device", "run.json"), "error: 'run.json': No space left on device.\n"),
        (OSError("no details"), "error: no details\n"),
        (MemoryError(), "error: the memory is not enough"),
        (torch.OutOfMemoryError("CUDA out of memory"), "error: the memory is not enough"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), "error: a file is not UTF-8 text"),
    ],
)
def test_what_a_user_can_cause_is_a_message(monkeypatch, error, message):
    planted(monkeypatch, error)
    assert refusal("methods", "lora").startswith(message)


def test_an_interruption_is_130(monkeypatch):
    planted(monkeypatch, KeyboardInterrupt())
    assert refusal("methods", "lora", code=130) == "interrupted.\n"


@pytest.mark.parametrize("args", [("--debug", "methods", "mamm"), ("methods", "mamm", "--debug")])
def test_debug_shows_the_error_itself_wherever_it_stands(args):
    with pytest.raises(MethodError, match="mamm"):
        call(*args)


def test_debug_by_environment(monkeypatch):
    monkeypatch.setenv("UNIPETL_DEBUG", "1")
    with pytest.raises(MethodError, match="mamm"):
        call("methods", "mamm")


def test_a_fault_of_ours_is_not_hidden(monkeypatch):
    planted(monkeypatch, RuntimeError("a fault"))
    with pytest.raises(RuntimeError, match="a fault"):
        call("methods", "lora")


def test_libraries_are_silent_unless_verbose(monkeypatch):
    def parse(text):
        warnings.warn("noise", UserWarning, stacklevel=1)
        raise MethodError("end")

    monkeypatch.setattr(notation, "parse", parse)
    refusal("methods", "lora")
    with pytest.raises(UserWarning, match="noise"):
        call("methods", "lora", "--verbose")


def test_a_real_process_shows_no_traceback():
    done = process("params", "-m", "roberta-base", "-x", "lora(rank='x')")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: method 'lora'")
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_behind_the_output_is_a_message():
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "unipetl", "schema"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=120
        )
    assert (done.returncode, done.stderr) == (1, "error: No space left on device.\n")


def test_a_reader_that_leaves_is_no_error():
    command = [sys.executable, "-m", "unipetl", "schema"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        running.stdout.close()
        assert running.stderr.read() == ""
        assert running.wait(120) == 0
