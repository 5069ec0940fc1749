"""Sizes are solved so that methods train about the same number of parameters."""

from __future__ import annotations

import pytest

import unipetl
from experiment.tiny import tiny_bart
from unipetl.errors import PlanError
from unipetl.experiment.budget import fill, solve


@pytest.mark.parametrize(
    "method", ["lora(rank=?)", "prefix_tuning(length=?, mlp=none)", "mam(length=?, rank=?, mlp=none)"]
)
@pytest.mark.parametrize("budget", [1, 500, 5000])
def test_no_other_size_comes_closer(method, budget):
    model = tiny_bart()

    def cost(size):
        return unipetl.plan(method.replace("?", str(size)), model).added_parameters

    size, found = solve(method, model, budget)
    assert found == cost(size)
    distances = {other: abs(cost(other) - budget) for other in range(1, size + 5)}
    assert distances[size] == min(distances.values())


def test_the_largest_size_is_a_bound():
    assert solve("prompt_tuning(length=?)", tiny_bart(), 10**6, largest=7)[0] == 7


def test_a_method_without_a_size_stays_as_it_is():
    assert fill("bitfit", tiny_bart(), 100) == "bitfit"
    with pytest.raises(PlanError, match="mark the size to solve for with"):
        solve("bitfit", tiny_bart(), 100)
