"""Law: eager and SDPA attention compute the same, chosen before or after attaching, whatever the mask."""

from __future__ import annotations

import pytest
import torch

import unipetl
from laws.support import EACH_LAYER, EXAMPLES, at_tokens, broken, explore, family_named, fresh, refused, tolerance
from unipetl.attaching import heads
from unipetl.testing import SMALL, batch
from unipetl.testing.compare import close, differ, outputs, scatter

METHODS = ["mam", "multi_head_parallel_adapter, official", "prompt_tuning"]
PADDINGS = ("none", "right", "left")


def law(model, method, family):
    """Law: the results of eager and SDPA attention agree at every token, and both see the method."""
    eager, bare, atol = fresh(family, implementation="eager"), fresh(family), tolerance(family)
    if atol > 1e-9:  # their eager attention casts a float64 mask to float32 infinities
        model, eager, bare, atol = model.float(), eager.float(), bare.float(), 1e-4
    for one in (model, eager):
        scatter(unipetl.attach(one, method))
    for padding in PADDINGS:
        call = batch(model, padding=padding, labels=False)
        wanted = at_tokens(call, outputs(model, call))
        differ(wanted, at_tokens(call, outputs(bare, call)), f"the method with sdpa and padding {padding}")
        close(at_tokens(call, outputs(eager, call)), wanted, f"eager from the start, padding {padding}", atol)
        model.set_attn_implementation("eager")
        close(at_tokens(call, outputs(model, call)), wanted, f"eager after attaching, padding {padding}", atol)
        model.set_attn_implementation("sdpa")
        close(at_tokens(call, outputs(model, call)), wanted, f"sdpa again, padding {padding}", atol)


@EACH_LAYER
@EXAMPLES
def test_random_methods(family, examples):
    explore("implementations", family, examples, lambda model, method: law(model, method, family))


@EACH_LAYER
@pytest.mark.parametrize("name", METHODS)
def test_named_methods(family, name):
    model = fresh(family)
    if not refused(model, SMALL[name]):
        law(model, SMALL[name], family)


def forward_only(monkeypatch, name, spoil):
    """Plant a fault in one attention implementation."""
    real = heads.implementation_in_force

    def planted(module, implementation):
        inner = real(module, implementation)
        return spoil(inner) if implementation == name else inner

    monkeypatch.setattr(heads, "implementation_in_force", planted)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_planted_mask_dropped(monkeypatch, implementation):
    def spoil(inner):
        return lambda module, q, k, v, mask, **kwargs: inner(module, q, k, v, None, **{**kwargs, "is_causal": False})

    forward_only(monkeypatch, implementation, spoil)
    family = family_named("bert")
    with broken("padding right"):
        law(fresh(family), SMALL["mam"], family)


def test_planted_prefix_dropped(monkeypatch):
    monkeypatch.setattr(heads.HeadProgram, "append", lambda self, item: None)
    family = family_named("bert")
    with broken("the method with sdpa"):
        law(fresh(family), SMALL["prefix_tuning"], family)


def test_planted_change_of_implementation_ignored(monkeypatch):
    real, first = heads.implementation_in_force, []

    def planted(module, name):
        first.append(name)
        return _uniform if name == "eager" and first[0] == "sdpa" else real(module, name)

    def _uniform(module, query, key, value, mask, **kwargs):
        mean = value.mean(dim=2, keepdim=True).expand(-1, -1, query.shape[2], -1)
        groups = query.shape[1] // mean.shape[1]
        return torch.repeat_interleave(mean, groups, dim=1).transpose(1, 2), None

    monkeypatch.setattr(heads, "implementation_in_force", planted)
    family = family_named("llama")
    with broken("eager"):
        law(fresh(family), SMALL["prefix_tuning"], family)
