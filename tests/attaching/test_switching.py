"""Attaching, switching and detaching touch what they change, and not the model."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import unipetl
from unipetl.attaching.hooks import INSTALLED
from unipetl.testing import batch, build
from unipetl.testing.compare import outputs, same, scatter


class Visits:
    """Counts the modules that are walked over, and the hooks that are put on or off."""

    def __init__(self, monkeypatch):
        self.walked = self.hooks = 0
        walk, pre, post = nn.Module.named_modules, nn.Module.register_forward_pre_hook, nn.Module.register_forward_hook

        def walking(module, *args, **kwargs):
            for found in walk(module, *args, **kwargs):
                self.walked += 1
                yield found

        def counting(real):
            def put(*args, **kwargs):
                self.hooks += 1
                return real(*args, **kwargs)

            return put

        monkeypatch.setattr(nn.Module, "named_modules", walking)
        monkeypatch.setattr(nn.Module, "register_forward_pre_hook", counting(pre))
        monkeypatch.setattr(nn.Module, "register_forward_hook", counting(post))

    def of(self, work):
        self.walked = self.hooks = 0
        work()
        return self.walked, self.hooks


def test_the_thirtieth_attaches_and_switches_as_the_second(monkeypatch):
    model = build("roberta", "sequence_classification")
    visits = Visits(monkeypatch)

    def attach(name):
        unipetl.activate(model, None)
        unipetl.attach(model, "mam(length=2, rank=2, mlp=None)", name=name)

    unipetl.attach(model, "mam(length=2, rank=2, mlp=None)", name="n0")
    costs = [visits.of(lambda number=number: attach(f"n{number}")) for number in range(1, 30)]
    assert costs[0] == costs[-1]
    for name in ("n3", "n29", None, "n0"):
        walked, hooks = visits.of(lambda name=name: unipetl.activate(model, name))
        assert walked == 0
        assert hooks == (0 if name is None else len(model.__dict__[INSTALLED]) - 2)  # two views of the attentions
    assert visits.of(lambda: unipetl.detach(model, "n29"))[0] == 0


def test_what_is_not_active_leaves_nothing_in_the_way():
    model = build("bart")
    for number in range(3):
        unipetl.attach(model, "mam(length=2, rank=2)", name=f"n{number}")
    unipetl.activate(model, None)
    assert INSTALLED not in model.__dict__
    assert not any(m._forward_hooks or m._forward_pre_hooks or "forward" in vars(m) for m in model.modules())


def test_switching_copies_nothing_and_optimizers_keep_what_is_theirs():
    model = build("bert", "sequence_classification")
    bare = dict(model.named_parameters())
    first = unipetl.attach(model, "bitfit", name="first")
    optimizer = torch.optim.SGD([one for one in model.parameters() if one.requires_grad], lr=0.5)
    unipetl.activate(model, None)
    assert all(parameter is bare[name] for name, parameter in model.named_parameters())
    second = unipetl.attach(model, "bitfit", name="second")
    before = {key: value.clone() for key, value in second.tensors().items()}
    unipetl.activate(model, "first")
    model(**batch(model)).loss.backward()
    optimizer.step()
    assert all(torch.equal(value, before[key]) for key, value in second.tensors().items())
    assert not all(torch.equal(value, before[key]) for key, value in first.tensors().items())
    unipetl.detach(model, "first")
    unipetl.detach(model, "second")
    assert all(parameter is bare[name] for name, parameter in model.named_parameters())


@pytest.mark.parametrize("name", ["self_attn", "layers", "weight", "model.layers.0", "unipetl", "lora_A", "ü/ .!", "0"])
def test_a_name_may_be_anything_printable(name, tmp_path):
    model = build("llama")
    call = batch(model, labels=False)
    scatter(unipetl.attach(model, "lora(rank=2)", name="other"))
    other = outputs(model, call)
    unipetl.activate(model, None)
    scatter(unipetl.attach(model, "prefix_tuning(length=2, mlp=None)", name=name), seed=1)
    own = outputs(model, call)
    for chosen in (name, "other"):
        unipetl.save(model, tmp_path / chosen.replace("/", "_"), name=chosen)
    with unipetl.routed(model, [name, "other"]):
        routed = outputs(model, call)
    assert torch.allclose(routed, torch.stack([own[0], other[1]]), atol=1e-5)
    unipetl.activate(model, "other")
    same(outputs(model, call), other, "the other attachment")
    twin = build("llama")
    unipetl.load(twin, tmp_path / "other")
    same(outputs(twin, call), other, "what was saved beside it")


def test_a_parked_parameter_follows_the_model():
    model = build("bert", "sequence_classification")
    scatter(unipetl.attach(model, "head_only", name="a"))
    unipetl.activate(model, None)
    model.double()
    unipetl.activate(model, "a")
    assert {one.dtype for one in model.parameters()} == {torch.float64}
    outputs(model, batch(model))
