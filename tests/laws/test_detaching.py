"""Law: detaching gives the model back as it was, and so does an attach that fails half-way."""

from __future__ import annotations

import pytest
import torch

import unipetl
from laws.support import EACH_FAMILY, EXAMPLES, broken, explore, family_named, fresh, refused
from unipetl.attaching import attachment as attaching
from unipetl.attaching import build as building
from unipetl.forms.bottleneck import BottleneckDelta
from unipetl.testing import SMALL, batch
from unipetl.testing.compare import outputs, same, scatter
from unipetl.testing.laws import Snapshot, detaches_exactly

MIXED = "mam(length=2, rank=2, mlp=3) + lora(rank=1, at=all) + houlsby(rank=2)"


class PlantedError(Exception):
    """What the failing attaches raise."""


@EACH_FAMILY
@EXAMPLES
def test_random_methods(family, examples):
    explore("detaching", family, examples, lambda model, method: detaches_exactly(model, method, batch(model)))


@EACH_FAMILY
@pytest.mark.parametrize("name", ["full", "bitfit", "prompt_tuning"])
def test_named_methods(family, name):
    model = fresh(family)
    if not refused(model, SMALL[name]):
        detaches_exactly(model, SMALL[name], batch(model))


@EACH_FAMILY
def test_flags_that_the_user_set(family):
    model = fresh(family)
    for parameter in list(model.parameters())[::3]:
        parameter.requires_grad_(False)
    model.train()
    before = Snapshot.of(model)
    unipetl.attach(model, MIXED)
    unipetl.detach(model)
    before.require_unchanged(model, "after detaching from a partly frozen model")


@EACH_FAMILY
def test_any_order_of_two_attachments(family):
    for first, second in (("a", "b"), ("b", "a")):
        model = fresh(family)
        before, bare = Snapshot.of(model), outputs(model, batch(model))
        unipetl.attach(model, MIXED, name="a", train_head=False)
        unipetl.attach(model, "prefix_tuning(length=2, mlp=None)", name="b", train_head=False)
        unipetl.detach(model, first)
        unipetl.detach(model, second)
        before.require_unchanged(model, f"after detaching {first} and {second}")
        same(outputs(model, batch(model)), bare, "the result")


def fails_cleanly(model, method):
    """Law: an attach that raises leaves the model, and what is attached to it, as it was."""
    before, result = Snapshot.of(model), outputs(model, batch(model))
    with pytest.raises(PlantedError):
        unipetl.attach(model, method, name="failing", train_head=False)
    before.require_unchanged(model, "after an attach that failed")
    same(outputs(model, batch(model)), result, "the result after an attach that failed")


def raise_at(monkeypatch, owner, name, call):
    """Make the ``call``-th call of a function raise, after it has done its work."""
    real, calls = getattr(owner, name), []

    def planted(*args, **kwargs):
        result = real(*args, **kwargs)
        calls.append(name)
        if len(calls) == call:
            raise PlantedError
        return result

    monkeypatch.setattr(owner, name, planted)


PLACES = [(BottleneckDelta, "reset", 3), (attaching, "build", 1), (attaching, "hang", 1), (building, "_holder", 3)]


@pytest.mark.parametrize("occupied", [False, True], ids=["bare", "occupied"])
@pytest.mark.parametrize(("owner", "name", "call"), PLACES, ids=["reset", "build", "hang", "holder"])
def test_a_failing_attach(monkeypatch, owner, name, call, occupied):
    model = fresh(family_named("bart"))
    if occupied:
        scatter(unipetl.attach(model, MIXED, name="first", train_head=False))
    raise_at(monkeypatch, owner, name, call)
    fails_cleanly(model, MIXED)


@pytest.mark.parametrize("occupied", [False, True], ids=["bare", "occupied"])
def test_an_attach_that_fails_among_the_hooks(monkeypatch, occupied):
    model = fresh(family_named("llama"))
    if occupied:
        scatter(unipetl.attach(model, MIXED, name="first", train_head=False))
    raise_at(monkeypatch, attaching, "install", 1)
    fails_cleanly(model, MIXED + " + prompt_tuning(length=2)")


def test_a_refused_method_touches_nothing():
    model = fresh(family_named("whisper"))
    before = Snapshot.of(model)
    with pytest.raises(unipetl.errors.PlanError):
        unipetl.attach(model, "lora(rank=1) + prompt_tuning(length=2)")
    before.require_unchanged(model, "after a refusal")


@pytest.mark.parametrize("method", [MIXED, "bitfit", "prompt_tuning(length=2)"])
def test_pickled_bytes_of_the_bare_model_are_the_same(method):
    model = fresh(family_named("bart"))
    before = {name: value.numpy().tobytes() for name, value in model.state_dict().items()}
    scatter(unipetl.attach(model, method))
    unipetl.detach(model)
    assert {name: value.numpy().tobytes() for name, value in model.state_dict().items()} == before


def plant_after_detach(monkeypatch, spoil):
    detach = unipetl.detach

    def planted(model, name=None):
        detach(model, name)
        spoil(model)

    monkeypatch.setattr("unipetl.testing.laws.removal.detach", planted)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda model: model.model.encoder.layers[0].fc1.register_forward_hook(lambda *_: None), "hooks"),
        (lambda model: model.model.decoder.register_forward_pre_hook(lambda *_: None), "hooks"),
        (lambda model: model.model.add_module("unipetl", torch.nn.Identity()), "modules"),
        (lambda model: setattr(model.model, "_unipetl_state", None), "attributes"),
        (lambda model: model.model.shared.weight.requires_grad_(False), "flags"),
        (lambda model: model.model.encoder.layers[0].fc1.weight.data.mul_(1 + 1e-12), "fc1.weight"),
        (lambda model: setattr(model.model.encoder.layers[0].self_attn, "config", object()), "plain"),
        (lambda model: model.model.encoder.train(), "modes"),
        (lambda model: setattr(model.lm_head.weight, "grad", model.lm_head.weight * 0), "gradients are left"),
    ],
)
def test_planted_traces(monkeypatch, spoil, message):
    plant_after_detach(monkeypatch, spoil)
    model = fresh(family_named("bart"))
    with broken(message):
        detaches_exactly(model, "mam(length=2, rank=2, mlp=None)", batch(model))


def test_planted_attach_that_does_not_clean_up(monkeypatch):
    monkeypatch.setattr(attaching, "unhang", lambda model, record: None)
    raise_at(monkeypatch, attaching, "install", 1)
    with broken("after an attach that failed"):
        fails_cleanly(fresh(family_named("bart")), "lora(rank=2)")
