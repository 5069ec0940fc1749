"""Ratios are taken to the reference next to them, and quartiles are numpy's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.rounds import Spread, between, means, order, ratios, spreads, steady

NAMES = st.lists(st.sampled_from("abcdefghij"), unique=True)


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=20))
def test_quartiles_are_numpys(values):
    found = Spread.of(values)
    assert np.allclose([found.low, found.middle, found.high], np.quantile(values, [0.25, 0.5, 0.75]))
    assert found.count == len(values)


def test_nothing_has_no_quartiles():
    with pytest.raises(ValueError, match="nothing"):
        Spread.of([])


@given(NAMES, st.integers(0, 9), st.integers(1, 4))
def test_a_round_has_everything_once_and_the_reference_near_everything(names, number, near):
    found = order([*names, "reference"], "reference", number, near)
    others = [name for name in found if name != "reference"]
    assert sorted(others) == sorted(names)
    assert found[0] == "reference"
    assert len(names) == 0 or found[-1] == "reference"
    longest = max(map(len, "".join("." if name == "reference" else name for name in found).split(".")))
    assert longest <= near


def test_rounds_differ_in_their_order_and_repeat_by_their_number():
    names = list("abcdefgh")
    assert order(names, "a", 1) == order(names, "a", 1)
    assert order(names, "a", 1) != order(names, "a", 2)


def test_ratios_by_hand():
    timings = [("floor", 1.0), ("x", 3.0), ("floor", 2.0), ("y", 3.0), ("z", 6.0), ("floor", 4.0)]
    assert ratios(timings, "floor") == {"x": 3 / 1.5, "y": 3 / 3, "z": 6 / 3, "floor": 1 / 4}


@given(st.floats(0.5, 2), st.integers(0, 5))
def test_a_machine_that_slows_down_steadily_changes_no_ratio(slower, number):
    names = order(["floor", "x", "y", "z", "w"], "floor", number, 1)
    timings = [(name, (1.0 if name == "floor" else 1.5) * (1 + slower * place)) for place, name in enumerate(names)]
    assert all(np.isclose(one, 1.5) for name, one in ratios(timings, "floor").items() if name != "floor")


def test_without_a_reference_there_are_no_ratios():
    assert ratios([("x", 1.0)], "floor") == {}


def test_what_is_timed_twice_counts_with_its_mean():
    timings = [("floor", 1.0), ("x", 2.0), ("floor", 1.0), ("x", 4.0), ("floor", 1.0)]
    assert ratios(timings, "floor")["x"] == 3.0
    assert means(timings) == {"floor": 1.0, "x": 3.0}


def test_rounds_that_lack_a_name_do_not_count_for_it():
    found = spreads([{"x": 1.0, "y": 1.0}, {"x": 3.0}])
    assert (found["x"].middle, found["x"].count, found["y"].count) == (2.0, 2, 1)


def test_two_processes_are_compared_round_by_round():
    ours = [[("lora", 1.0)], [("lora", 2.0)], [("lora", 9.0)]]
    theirs = [[("lora", 2.0)], [("lora", 4.0)], [("other", 1.0)]]
    assert between(ours, theirs, "lora", "lora") == Spread(0.5, 0.5, 0.5, 2)
    assert between(ours, theirs, "lora", "nowhere") is None


def test_how_steady_a_round_is():
    assert steady([("floor", 2.0), ("x", 9.0), ("floor", 3.0), ("floor", 1.0)], "floor") == 3.0
    assert steady([("floor", 2.0)], "floor") == 1.0
