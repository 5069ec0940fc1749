"""Law: a decoder's result at a token depends on the tokens up to it, with any method."""

from __future__ import annotations

import pytest
import torch

import unipetl
from laws.support import CAUSAL, EXAMPLES, broken, explore, family_named, fresh, refused
from unipetl.attaching import heads
from unipetl.testing import SMALL, batch
from unipetl.testing.compare import close, differ, outputs, scatter

METHODS = ["prompt_tuning", "mam", "multi_head_parallel_adapter", "parallel_adapter, official"]


def law(model, method, padding="none"):
    """Law: another token at place j leaves the results before j alone, and changes the one at j."""
    scatter(unipetl.attach(model, method))
    call = batch(model, labels=False, padding=padding)
    tokens = "decoder_input_ids" if "decoder_input_ids" in call else "input_ids"
    before = outputs(model, call)
    for place in (1, 3):
        changed = call[tokens].clone()
        changed[:, place] = (changed[:, place] - 5 + 7) % 45 + 5
        after = outputs(model, {**call, tokens: changed})
        close(after[:, :place], before[:, :place], f"the results before token {place}, which changed", 1e-11)
        differ(after[:, place], before[:, place], f"the result at token {place}, which changed")


@CAUSAL
@EXAMPLES
def test_random_methods(family, examples):
    explore("causality", family, examples, law)


@CAUSAL
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_named_methods(family, name, implementation):
    model = fresh(family, implementation=implementation)
    if not refused(model, SMALL[name]):
        law(model, SMALL[name])


def test_planted_mask_without_causality(monkeypatch):
    real = heads.widen

    def planted(module, query, key, value, mask, length, implementation, kwargs):
        mask, key, value, kwargs = real(module, query, key, value, mask, length, implementation, kwargs)
        return None, key, value, {**kwargs, "is_causal": False}

    monkeypatch.setattr(heads, "is_possible", lambda *_: False)
    monkeypatch.setattr(heads, "widen", planted)
    for name in ("gpt2", "llama", "bart", "whisper"):
        with broken("before token 1"):
            law(fresh(family_named(name)), SMALL["prefix_tuning"])


def test_planted_gate_without_causality(monkeypatch):
    real = heads.gated
    monkeypatch.setattr(heads, "gated", lambda *given: real(*given[:4], None, given[5], False))
    for name in ("gpt2", "llama", "bart", "whisper"):
        with broken("before token 1"):
            law(fresh(family_named(name)), SMALL["prefix_tuning"])


def test_planted_result_that_ignores_the_token(monkeypatch):
    monkeypatch.setattr("unipetl.attaching.ports.Change.added", lambda self, h, x, **_: torch.ones_like(h))
    with broken("result at token 1"):
        law(fresh(family_named("gpt2")), "pfeiffer(rank=2)")
