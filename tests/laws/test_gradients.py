"""Law: a method trains its own parameters, every one of them, and nothing else."""

from __future__ import annotations

import pytest
import torch

from laws.support import EACH_FAMILY, EXAMPLES, broken, explore, family_named, fresh, refused
from unipetl.forms.bottleneck import BottleneckDelta
from unipetl.forms.head_attention import HeadAttentionDelta
from unipetl.testing import SMALL, batch
from unipetl.testing.laws import trains_its_own_and_nothing_else

CHOSEN = ["full", "bitfit", "prompt_tuning", "mam", "multi_head_parallel_adapter, official", "pfeiffer, official"]


@EACH_FAMILY
@EXAMPLES
def test_random_methods(family, examples):
    explore(
        "gradients",
        family,
        examples,
        lambda model, method: trains_its_own_and_nothing_else(model, method, batch(model)),
    )


@EACH_FAMILY
@pytest.mark.parametrize("name", CHOSEN)
def test_named_methods(family, name):
    model = fresh(family)
    if not refused(model, SMALL[name]):
        trains_its_own_and_nothing_else(model, SMALL[name], batch(model))


@EACH_FAMILY
def test_every_head_of_a_family(family):
    for head in family.heads:
        model = fresh(family, head)
        trains_its_own_and_nothing_else(model, "mam(length=2, rank=3, mlp=None) + lora(rank=1)", batch(model))


@pytest.fixture
def model():
    return fresh(family_named("bert"))


def test_planted_parameter_off_the_graph(monkeypatch, model):
    def planted(self, x):
        return torch.relu(x @ self.down.detach().T)

    monkeypatch.setattr(BottleneckDelta, "_inner", planted)
    with broken("down gets no gradient"):
        trains_its_own_and_nothing_else(model, "adapter(rank=2)", batch(model))


def test_planted_dead_parameter(monkeypatch, model):
    keys_values = HeadAttentionDelta.keys_values

    def planted(self, batch, dtype):
        key, value = keys_values(self, batch, dtype)
        return key * 0, value

    monkeypatch.setattr(HeadAttentionDelta, "keys_values", planted)
    with broken("zero for .*key"):
        trains_its_own_and_nothing_else(model, "prefix_tuning(length=2, mlp=None)", batch(model))


def test_planted_thawed_base(monkeypatch, model):
    def planted(changed, state):
        changed.bert.embeddings.word_embeddings.weight.requires_grad_(True)

    monkeypatch.setattr("unipetl.attaching.attachment.install", planted)
    with broken("word_embeddings.weight is not the method's own"):
        trains_its_own_and_nothing_else(model, "lora(rank=2)", batch(model))


def test_planted_frozen_change(monkeypatch, model):
    def planted(changed, state):
        for name, parameter in changed.named_parameters():
            parameter.requires_grad_(parameter.requires_grad and "unipetl" not in name)

    monkeypatch.setattr("unipetl.attaching.attachment.install", planted)
    with broken("is frozen"):
        trains_its_own_and_nothing_else(model, "lora(rank=2)", batch(model))


def test_planted_loss_that_is_not_a_number(monkeypatch, model):
    monkeypatch.setattr(BottleneckDelta, "added", lambda self, h, x, scale, **_: x * float("nan"))
    with broken("the loss is nan"):
        trains_its_own_and_nothing_else(model, "adapter(rank=2)", batch(model))
