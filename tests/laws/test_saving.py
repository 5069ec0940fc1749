"""Law: what is saved and loaded onto an equal base computes the same."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

import unipetl
from laws.support import EACH_FAMILY, EXAMPLES, broken, explore, family_named, fresh, refused
from unipetl.testing import SMALL, batch
from unipetl.testing.compare import outputs, require, same, scatter
from unipetl.testing.laws import survives_saving


def law(model, twin, method):
    with tempfile.TemporaryDirectory() as folder:
        survives_saving(model, twin, method, batch(model), Path(folder))


@EACH_FAMILY
@EXAMPLES
def test_random_methods(family, examples):
    explore("saving", family, examples, lambda model, method: law(model, fresh(family), method))


@EACH_FAMILY
@pytest.mark.parametrize("name", ["bitfit", "prompt_tuning", "mam"])
def test_named_methods(family, name):
    model = fresh(family)
    if not refused(model, SMALL[name]):
        law(model, fresh(family), SMALL[name])


def moves_between_heads(family, first, second, method, folder):
    """Law: changes saved from one head class load onto another one with the same base."""
    model, other = fresh(family, first), fresh(family, second)
    weights, shared = model.base_model.state_dict(), other.base_model.state_dict()
    require(len(shared.keys() & weights.keys()) > 10, "the two classes have no base in common")
    other.base_model.load_state_dict({**shared, **{key: weights[key] for key in shared if key in weights}})
    attachment = scatter(unipetl.attach(model, method, train_head=False))
    unipetl.save(model, folder)
    loaded = unipetl.load(other, folder, allow_other_base=True)
    require(set(loaded.tensors()) == set(attachment.tensors()), "the other head's tensors have other names")
    for name, tensor in attachment.tensors().items():
        same(loaded.tensors()[name], tensor, name)
    call = {
        name: value for name, value in batch(other, labels=False).items() if name in ("input_ids", "attention_mask")
    }
    if family.kind != "both":
        same(outputs(other.base_model, call), outputs(model.base_model, call), "the base model's result")


@pytest.mark.parametrize("method", [SMALL["mam"], SMALL["lora everywhere"], SMALL["prompt_tuning"]])
@EACH_FAMILY
def test_other_head_classes(family, method, tmp_path):
    usual, *others = (head for head in family.heads if (family.name, head) not in SPECIAL)
    if not refused(fresh(family), method):
        for other in others:
            moves_between_heads(family, usual, other, method, tmp_path / other)


#: Classes that lack one of the two stacks, so that a method on both does not fit.
SPECIAL = {("bart", "causal_lm"), ("t5", "token_classification"), ("whisper", "audio_classification")}


def test_planted_tensor_left_out(monkeypatch):
    real = unipetl.storage.trained_tensors

    def planted(model, record):
        tensors = real(model, record)
        return tensors if record.name != "default" else {k: v for k, v in tensors.items() if "value/" not in k}

    monkeypatch.setattr("unipetl.storage.trained_tensors", planted)
    model = fresh(family_named("bert"))
    with broken("after loading"):
        law(model, fresh(family_named("bert")), SMALL["lora"])


def test_planted_load_that_copies_nothing(monkeypatch):
    monkeypatch.setattr("unipetl.storage._fill", lambda *args, **kwargs: None)
    with broken("after loading"):
        law(fresh(family_named("bert")), fresh(family_named("bert")), SMALL["lora"])


def test_planted_load_that_trains_more(monkeypatch):
    load = unipetl.load

    def planted(model, folder):
        loaded = load(model, folder)
        next(model.parameters()).requires_grad_(True)
        return loaded

    monkeypatch.setattr("unipetl.testing.laws.saving.load", planted)
    with broken("trains other parameters"):
        law(fresh(family_named("bert")), fresh(family_named("bert")), SMALL["lora"])


def test_planted_function_that_files_do_not_hold(monkeypatch):
    load = unipetl.load

    def planted(model, folder):
        loaded = load(model, folder)
        model.bert.embeddings.LayerNorm.weight.data += 0.01
        return loaded

    monkeypatch.setattr("unipetl.testing.laws.saving.load", planted)
    with broken("the result after loading"):
        law(fresh(family_named("bert")), fresh(family_named("bert")), SMALL["lora"])
