"""Law: training leaves the base model's keys and weights bit for bit alone."""

from __future__ import annotations

import pytest

from laws.support import EACH_FAMILY, EXAMPLES, broken, explore, family_named, fresh, refused
from unipetl.attaching import attachment as attaching
from unipetl.testing import SMALL, batch
from unipetl.testing.laws import leaves_the_base_alone


@EACH_FAMILY
@EXAMPLES
def test_random_methods(family, examples):
    explore("base", family, examples, lambda model, method: leaves_the_base_alone(model, method, batch(model)))


@EACH_FAMILY
@pytest.mark.parametrize("name", ["bitfit", "prompt_tuning", "mam", "lora everywhere"])
def test_named_methods(family, name):
    model = fresh(family)
    if not refused(model, SMALL[name]):
        leaves_the_base_alone(model, SMALL[name], batch(model))


def test_planted_weight_that_attaching_moves(monkeypatch):
    model = fresh(family_named("gpt2"))

    def planted(changed, state):
        changed.transformer.wte.weight.data[0, 0] += 1e-6

    monkeypatch.setattr(attaching, "install", planted)
    with broken("wte.weight after attaching"):
        leaves_the_base_alone(model, "lora(rank=2)", batch(model))


def test_planted_wrapper_that_renames_keys(monkeypatch):
    model = fresh(family_named("gpt2"))
    hang = attaching.hang

    def planted(changed, plan, record):
        hang(changed, plan, record)
        changed.transformer._modules["inner"] = changed.transformer._modules.pop("h")

    monkeypatch.setattr(attaching, "hang", planted)
    monkeypatch.setattr(attaching, "install", lambda model, state: None)
    with broken("lost the key"):
        leaves_the_base_alone(model, "lora(rank=2)", batch(model))


def test_planted_thawed_base(monkeypatch):
    model = fresh(family_named("gpt2"))
    install = attaching.install

    def planted(changed, state):
        install(changed, state)
        changed.transformer.ln_f.weight.requires_grad_(True)

    monkeypatch.setattr(attaching, "install", planted)
    with broken("ln_f.weight, which is not trained"):
        leaves_the_base_alone(model, "lora(rank=2)", batch(model))


def test_planted_parameter_that_does_not_move(monkeypatch):
    model = fresh(family_named("gpt2"))
    install = attaching.install

    def planted(changed, state):
        install(changed, state)
        for name, parameter in changed.named_parameters():
            if name.endswith("delta.up"):
                parameter.requires_grad_(False)

    monkeypatch.setattr(attaching, "install", planted)
    with broken("did not move"):
        leaves_the_base_alone(model, "lora(rank=2)", batch(model))
