"""Law: on a bfloat16 model everything works without casts, and the trained values stay float32."""

from __future__ import annotations

import pytest
import torch

import unipetl
from laws.support import EACH_LAYER, broken, family_named, fresh, refused
from unipetl.attaching import build as building
from unipetl.testing import SMALL, batch, prompt
from unipetl.testing.compare import differ, logits_of, loss_of, outputs, require, same, scatter
from unipetl.testing.laws.generation import generate

METHODS = [
    "prompt_tuning",
    "mam",
    "lora everywhere",
    "multi_head_parallel_adapter, official",
    "parallel_adapter, official",
    "scaled_parallel_adapter, learned",
    "ia3",
]
LEARNED = {
    "modifications": [
        {
            "representation": place,
            "form": {"bottleneck": {"rank": 2, "layer_norm": "out", "inner_scale": "learned", "init": "bert"}},
            "composition": {"add": {"scale": "learned"}},
        }
        for place in ("attention", "ffn", "attention.heads")
    ]
}


def law(model, method):
    """Law: float32 values, a bfloat16 result that the method moves, gradients, generation, and an exact detach."""
    call, bare = batch(model), outputs(model, batch(model))
    attachment = unipetl.attach(model, method)
    own = {name: value for name, value in attachment.tensors().items() if not name.startswith("model/")}
    wrong = [name for name, value in own.items() if value.dtype != torch.float32]
    require(not wrong, f"not float32: {wrong[:3]}.")
    scatter(attachment)
    result = logits_of(model(**call))
    require(result.dtype == torch.bfloat16, f"the result is {result.dtype}.")
    differ(result.detach(), bare, "the method in bfloat16", 1e-3)
    loss_of(model, call).backward()
    for name, value in own.items():
        require(value.grad is not None and bool(torch.isfinite(value.grad).all()), f"{name} has no good gradient.")
    model.zero_grad()
    if model.can_generate():
        generate(model, prompt(model))
    unipetl.detach(model)
    same(outputs(model, call), bare, "the result after detaching")


@EACH_LAYER
@pytest.mark.parametrize("name", METHODS)
def test_named_methods(family, name):
    model = fresh(family, dtype=torch.bfloat16)
    if not refused(model, SMALL[name]):
        law(model, SMALL[name])


@EACH_LAYER
def test_learned_scales(family):
    law(fresh(family, dtype=torch.bfloat16), unipetl.Method.from_plain(LEARNED))


def test_planted_half_precision_values(monkeypatch):
    real = building.build

    def planted(model, plan, record):
        real(model, plan, record)
        for change in record.changes.values():
            change.bfloat16()

    monkeypatch.setattr("unipetl.attaching.attachment.build", planted)
    with broken("not float32"):
        law(fresh(family_named("bert"), dtype=torch.bfloat16), SMALL["lora"])


def test_planted_result_in_another_dtype(monkeypatch):
    monkeypatch.setattr(
        "unipetl.attaching.ports.Change.added", lambda self, h, x, **_: h.float() + self.delta(x).float()
    )
    with pytest.raises((unipetl.errors.CheckError, RuntimeError)):
        law(fresh(family_named("bert"), dtype=torch.bfloat16), SMALL["pfeiffer"])


def test_planted_change_too_small_to_see(monkeypatch):
    monkeypatch.setattr(
        "unipetl.attaching.ports.Change.added", lambda self, h, x, **_: h + 0 * self.delta(x).to(h.dtype)
    )
    with broken("the method in bfloat16"):
        law(fresh(family_named("bert"), dtype=torch.bfloat16), SMALL["lora"])
