"""The contract on every model type: what the run over them all needs."""

from __future__ import annotations

import contextlib
import signal
import time

import pytest

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
