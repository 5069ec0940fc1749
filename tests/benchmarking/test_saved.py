"""Bytes are counted as they can be counted by hand."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.saved import alive, saved_bytes

ROWS, INNER, FLOAT = 4, 256, 4


def test_a_linear_and_an_exponential_save_the_input_and_the_result():
    linear = nn.Linear(8, 16)
    x = torch.randn(ROWS, 8)
    found = saved_bytes(lambda: linear(x).exp().sum(), linear.parameters())
    assert found == FLOAT * ROWS * (8 + 16)  # x for the weight's gradient, exp(z) for z's


def test_parameters_count_where_they_are_not_left_out():
    linear = nn.Linear(8, 16, bias=False)
    x = torch.randn(ROWS, 8, requires_grad=True)
    assert saved_bytes(lambda: linear(x).sum(), ()) == FLOAT * (ROWS * 8 + 8 * 16)


def test_a_storage_counts_once_however_many_views_are_saved():
    x = torch.randn(ROWS, 8, requires_grad=True)
    assert saved_bytes(lambda: (x[:2] * x[2:]).sum() + (x * x).sum(), ()) == x.nbytes


def test_a_frozen_layer_saves_nothing():
    linear = nn.Linear(8, 16).requires_grad_(False)
    assert saved_bytes(lambda: linear(torch.randn(ROWS, 8)).exp().sum(), linear.parameters()) == 0


class Keeping(torch.autograd.Function):
    """Keeps a tensor without telling autograd."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.kept = x * 2
        return x.sum()

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        return grad * ctx.kept


def test_what_a_function_keeps_to_itself_is_held_though_not_saved():
    x = torch.randn(ROWS, INNER, requires_grad=True)
    assert saved_bytes(lambda: Keeping.apply(x), ()) == 0
    left, most = alive(lambda: Keeping.apply(x), "cpu")
    assert left == x.nbytes + FLOAT  # what it keeps, and the sum
    assert most >= left


def test_the_peak_is_the_most_that_lives_at_once():
    x = torch.randn(ROWS, INNER)

    def work() -> torch.Tensor:
        total = x + 1
        for _ in range(3):
            total = F.relu(total)  # the old and the new one live together, never three
        return total.sum()

    left, most = alive(work, "cpu")
    assert left == FLOAT
    assert most == 2 * x.nbytes
