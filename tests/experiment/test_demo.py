"""The demo names methods that exist, and gives those with a size about the same number of parameters."""

from __future__ import annotations

import pytest

import unipetl
from experiment.tiny import tiny_bart, tiny_bert
from unipetl.experiment import demo
from unipetl.experiment.budget import solve


@pytest.mark.parametrize("name", demo.TASKS)
def test_every_method_with_a_size_meets_the_budget(name):
    model = {"pronounce": tiny_bart, "sentiment": tiny_bert}[name]()
    for setting in demo.TASKS[name].methods.values():
        if "?" in setting.method and setting.largest == 4096:
            size, found = solve(setting.method, model, 20_000)
            assert size > 1
            assert found == pytest.approx(20_000, rel=0.06)
        elif setting.method != "none":
            unipetl.parse(setting.method.replace("?", "1"))


def test_both_tasks_compare_the_same_methods_and_all_of_them():
    pronounce, sentiment = (settings.methods for settings in demo.TASKS.values())
    assert list(pronounce) == list(sentiment)
    assert len(pronounce) == 12
