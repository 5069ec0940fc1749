"""Law: forms that promise to start at zero change leave the model's results bit for bit alone until trained."""

from __future__ import annotations

import pytest
import torch

from laws.support import EACH_LAYER, EXAMPLES, broken, explore, family_named, fresh, refused
from unipetl.composition import Multiply
from unipetl.forms.bottleneck import BottleneckDelta
from unipetl.forms.rescale import RescaleDelta
from unipetl.testing import SMALL, batch
from unipetl.testing.laws import promises_zero, starts_as_the_bare_model

PROMISING = sorted(name for name, text in SMALL.items() if promises_zero(text))


@EACH_LAYER
@EXAMPLES
def test_random_methods(family, examples):
    explore("identity", family, examples, lambda model, method: starts_as_the_bare_model(model, method, batch(model)))


@EACH_LAYER
@pytest.mark.parametrize("name", PROMISING)
def test_named_methods_that_promise_it(family, name):
    model = fresh(family)
    if not refused(model, SMALL[name]):
        starts_as_the_bare_model(model, SMALL[name], batch(model))


def test_the_paper_s_zero_starts_are_among_them():
    assert {"lora", "scaled_parallel_adapter", "ia3"} <= set(PROMISING)
    assert not {"adapter", "prefix_tuning", "prompt_tuning", "mam"} & set(PROMISING)


def test_planted_start_that_is_not_zero(monkeypatch):
    reset = BottleneckDelta.reset

    def planted(self, generator):
        reset(self, generator)
        torch.nn.init.constant_(self.up, 1e-6)

    monkeypatch.setattr(BottleneckDelta, "reset", planted)
    model = fresh(family_named("bart"))
    with broken("fresh attachment"):
        starts_as_the_bare_model(model, "scaled_parallel_adapter(rank=2)", batch(model))


def test_planted_factor_other_than_one(monkeypatch):
    monkeypatch.setattr(RescaleDelta, "reset", lambda self, generator: torch.nn.init.constant_(self.factor, 1.001))
    model = fresh(family_named("llama"))
    with broken("fresh attachment"):
        starts_as_the_bare_model(model, "ia3", batch(model))


def test_planted_change_without_effect(monkeypatch):
    monkeypatch.setattr("unipetl.attaching.ports.Change.added", lambda self, h, x, **_: h)
    model = fresh(family_named("gpt2"))
    with broken("random values"):
        starts_as_the_bare_model(model, "lora(rank=2)", batch(model))


def test_planted_factor_without_effect(monkeypatch):
    monkeypatch.setattr("unipetl.attaching.ports.Multiply", type("Other", (Multiply,), {}))
    monkeypatch.setattr("unipetl.attaching.ports.Change.added", lambda self, h, x, **_: h)
    model = fresh(family_named("gpt2"))
    with broken("random values"):
        starts_as_the_bare_model(model, "ia3", batch(model))
