"""`check_form` accepts every form of ours and refuses forms that break a promise."""

from __future__ import annotations

import math
from typing import ClassVar

import pytest
import torch
from hypothesis import given
from torch import nn

from unipetl.errors import CheckError
from unipetl.forms import Bottleneck, Delta, Features, Form, HeadAttention, LowRank, Mlp, Prompt, Rescale
from unipetl.testing import check_form
from unipetl.testing.strategies import forms


@given(forms())
def test_any_form_of_ours(form):
    check_form(form)


@pytest.mark.parametrize(
    "form",
    [
        Bottleneck(rank=2),
        Bottleneck(rank=2, layer_norm="out", inner_scale="learned", init="bert"),
        LowRank(rank=2),
        HeadAttention(length=2),
        HeadAttention(length=2, reparametrization=Mlp(width=3), init="lora"),
        Prompt(length=2),
        Rescale(),
    ],
    ids=repr,
)
def test_each_form(form):
    check_form(form)


class Doubling(Form):
    """A third party's form: a square map, ``W · + b`` with nothing of ours but the base class."""

    tag: ClassVar[str] = "doubling"
    equation: ClassVar[str] = "W ·"
    needs: ClassVar[type[Features]] = Features
    fault: str = ""

    @property
    def starts_at_zero(self):
        return self.fault != "modest"

    def build_shared(self, shapes):
        return None

    def build(self, shape, shared, index):
        return DoublingDelta(self.fault, shape)

    def paper_parameters(self, shape):
        return shape.in_features * shape.out_features * (2 if self.fault == "counts twice" else 1)


class DoublingDelta(Delta):
    def __init__(self, fault, shape):
        super().__init__()
        self.fault = fault
        device = "cpu" if fault == "ignores the device" else None
        self.weight = nn.Parameter(torch.empty(shape.out_features, shape.in_features, device=device))
        self.shift = nn.Parameter(torch.empty(shape.out_features))

    def reset(self, generator):
        nn.init.zeros_(self.weight)
        if self.fault != "leaves a value unset":
            nn.init.zeros_(self.shift)
        if self.fault == "not zero":
            nn.init.constant_(self.shift, 1e-8)
        if self.fault == "own generator":
            nn.init.uniform_(self.shift)
        if self.fault == "another value each time":
            nn.init.constant_(self.shift, next(COUNTER))

    def forward(self, x):
        weight = self.weight.to(x.dtype)
        if self.fault == "mixes rows":
            x = x + x.mean(dim=0, keepdim=True)
        if self.fault == "wrong shape":
            return (x @ weight.T)[..., :-1]
        if self.fault == "float32":
            return x.float() @ self.weight.T + self.shift
        if self.fault == "not finite":
            return x @ weight.T + self.shift.to(x.dtype).where(self.shift == 0, torch.tensor(math.inf, dtype=x.dtype))
        if self.fault == "off the graph":
            return x @ weight.T + self.shift.detach().to(x.dtype)
        if self.fault == "dead":
            return x @ weight.T + 0 * self.shift.to(x.dtype)
        return x @ weight.T + self.shift.to(x.dtype)


COUNTER = iter(range(1, 1000))
FAULTS = {
    "modest": "starts_at_zero is False",
    "not zero": "starts_at_zero is True",
    "leaves a value unset": "unset",
    "own generator": "global generator",
    "another value each time": "reset twice|starts_at_zero",
    "ignores the device": "device",
    "counts twice": "paper's count",
    "wrong shape": "shape",
    "float32": "input is torch.float32",
    "not finite": "not finite",
    "off the graph": "no gradient",
    "dead": "gradient is zero",
    "mixes rows": "one row alone",
}


def test_a_third_party_s_form():
    check_form(Doubling())


@pytest.mark.parametrize(("fault", "message"), FAULTS.items(), ids=FAULTS)
def test_planted_fault(fault, message):
    with pytest.raises(CheckError, match=message):
        check_form(Doubling(fault=fault))


def test_planted_notation_that_forgets(monkeypatch):
    monkeypatch.setattr(Doubling, "plain", lambda self: "doubling")
    with pytest.raises(CheckError, match="reads back"):
        check_form(Doubling(fault="anything"))
