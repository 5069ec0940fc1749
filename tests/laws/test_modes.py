"""Law: what is attached evaluates in a model that evaluates, and trains in one that trains."""

from __future__ import annotations

import pytest

import unipetl
from laws.support import EACH_LAYER, broken, family_named, fresh
from unipetl.attaching import build as building
from unipetl.testing import batch
from unipetl.testing.compare import outputs, require, same, scatter

METHOD = (
    "prefix_tuning(length=2, mlp=3, dropout=0.5) + adapter(rank=2, at=both, dropout=0.5) + lora(rank=2, dropout=0.5)"
)


def law(model, method, training):
    """Law: every attached module is in its parent's mode, and evaluation is deterministic."""
    model.train(training)
    scatter(unipetl.attach(model, method))
    wrong = [name for name, module in model.named_modules() if module.training is not training]
    require(not wrong, f"in the other mode than the model: {wrong[:3]}.")
    model.eval()
    same(outputs(model, batch(model)), outputs(model, batch(model)), "two evaluations")


@pytest.mark.parametrize("training", [False, True])
@EACH_LAYER
def test_modes(family, training):
    law(fresh(family), METHOD, training)


@EACH_LAYER
def test_a_loaded_attachment_evaluates(family, tmp_path):
    model = fresh(family)
    unipetl.attach(model, METHOD)
    unipetl.save(model, tmp_path)
    other = fresh(family)
    unipetl.load(other, tmp_path)
    same(outputs(other, batch(other)), outputs(model, batch(model)), "a loaded model that evaluates")


def test_planted_change_that_keeps_training(monkeypatch):
    hang = building.hang

    def planted(model, plan, record):
        hang(model, plan, record)
        for change in record.changes.values():
            change.train()

    monkeypatch.setattr("unipetl.attaching.attachment.hang", planted)
    with broken("in the other mode"):
        law(fresh(family_named("bert")), METHOD, training=False)
