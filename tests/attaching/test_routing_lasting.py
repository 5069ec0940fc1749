"""What routing keeps from one call to the next, and from one process to the next, leads to no wrong row."""

from __future__ import annotations

import pickle  # noqa: TID251

import pytest
import torch
from torch.utils.hooks import RemovableHandle

import unipetl
from unipetl.attaching import state
from unipetl.testing import batch, build, prompt, randomize
from unipetl.testing.compare import outputs, same
from unipetl.testing.laws import attach_all, routes_rows_alone


def test_structures_are_told_apart_after_unpickling_elsewhere(monkeypatch):
    model = build("bert", dtype=torch.float64)
    attach_all(model, ["lora(rank=2)"])
    with unipetl.routed(model, ["n0"]):
        pass
    written = pickle.dumps(model)
    monkeypatch.setattr(state, "_STRUCTURES", {})
    model = pickle.loads(written)  # noqa: S301
    unipetl.activate(model, None)
    unipetl.attach(model, "houlsby(rank=2)", name="n1")
    randomize(model)
    routes_rows_alone(model, ["n0", "n1"], batch(model, rows=2, labels=False), atol=1e-9)


def test_hooks_that_were_unpickled_keep_their_numbers(monkeypatch):
    monkeypatch.setattr(RemovableHandle, "next_id", 0)
    model = build("bert", dtype=torch.float64)
    unipetl.attach(model, "lora(rank=2)")
    randomize(model)
    call = batch(model)
    wanted, written = outputs(model, call), pickle.dumps(model)
    monkeypatch.setattr(RemovableHandle, "next_id", 0)
    model = pickle.loads(written)  # noqa: S301
    seen = []
    changed = [one for one in model.modules() if one._forward_hooks]
    handles = [one.register_forward_hook(lambda *_: seen.append(1)) for one in changed for _ in range(99)]
    same(outputs(model, call), wanted, "with hooks of another library beside")
    unipetl.detach(model)
    seen.clear()
    outputs(model, call)
    assert len(seen) == len(handles), "the hooks of others stay"
    for one in handles:
        one.remove()
    assert not any(one._forward_hooks for one in model.modules())


def test_values_of_its_own_follow_a_model_that_was_moved():
    model = build("bert")
    attach_all(model, ["bitfit", "bitfit"])
    unipetl.activate(model, None)
    model.double()
    with unipetl.routed(model, ["n0", "n1"]):
        outputs(model, batch(model, rows=2, labels=False))
    routes_rows_alone(model, ["n0", "n1"], batch(model, rows=2, labels=False), atol=1e-9)


@pytest.mark.parametrize("name", ["bart", "gpt2"])
def test_a_call_after_beams(name):
    model = build(name, dtype=torch.float64)
    attach_all(model, ["prompt_tuning(length=2)", "lora(rank=2)"])
    call = batch(model, rows=2, labels=False)
    with unipetl.routed(model, ["n0", "n1"]):
        before = outputs(model, call)
        model.generate(**prompt(model, rows=2), num_beams=3, max_new_tokens=2)
        same(outputs(model, call), before, "after three beams a row")


def test_what_was_stacked_in_half_precision_is_not_used_without():
    model = build("gpt2")
    attach_all(model, ["prefix_tuning(length=2, mlp=6)", "prefix_tuning(length=2, mlp=6)"])
    call = batch(model, rows=2, labels=False)
    with unipetl.routed(model, ["n0", "n1"]):
        wanted = outputs(model, call)
    with torch.no_grad(), unipetl.routed(model, ["n0", "n1"]):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            model(**call)
        same(outputs(model, call), wanted, "after autocast")
