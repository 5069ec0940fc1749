"""The contract on every model type: what the run over them all needs."""

from __future__ import annotations

import contextlib
import os
import signal
import time

import pytest
import torch

from unipetl.errors import CheckError
from unipetl.testing import coverage, coverage_report
from unipetl.testing.apart import in_a_process
from unipetl.testing.coverage import _at_most


def deaf():
    with contextlib.suppress(Exception):
        compute(5)
    compute(5)


def compute(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_time_runs_out_also_where_exceptions_are_passed_over():
    with pytest.raises(TimeoutError), _at_most(0.1):
        deaf()
    assert signal.getitimer(signal.ITIMER_PROF) == (0, 0)


def takes(size):
    return len(bytearray(size))


def takes_in_torch(size):
    return check_type_with(lambda _: torch.zeros(size))


def ends():
    os.kill(os.getpid(), signal.SIGKILL)


def check_type_with(build):
    """``check_type`` where building a model is ``build``."""
    coverage.build_type = build  # in a process of its own
    return coverage.check_type("bert").status


def test_a_process_of_its_own_gives_the_result():
    assert in_a_process(takes, 1000, memory=2**32) == 1000


def test_what_needs_more_memory_than_it_may_take_is_given_up():
    status = in_a_process(takes_in_torch, 2**30, memory=2**31)
    assert status == "given up: it needs more memory than it may take"


def test_a_process_that_is_killed_is_told_of_and_hangs_nothing():
    with pytest.raises(CheckError, match=r"without a result \(exit code -9\)"):
        in_a_process(ends, memory=2**32)


def test_a_row_of_a_killed_process_says_so(monkeypatch):
    monkeypatch.setattr(coverage_report, "in_a_process", killed)
    row = coverage_report._row("bert", {}, 1, 2**32)
    assert (row["model_type"], row["status"]) == ("bert", "given up: its process ended")


def killed(*_, **__):
    raise CheckError("its process ended")
