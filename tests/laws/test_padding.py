"""Law: a padded row of a batch gives what the row gives alone."""

from __future__ import annotations

import pytest
import torch

from laws.support import EACH_FAMILY, EXAMPLES, broken, explore, family_named, fresh, refused
from unipetl.attaching import entry, heads, prompts
from unipetl.testing import FAMILIES, SMALL, batch
from unipetl.testing.laws import ignores_padding

METHODS = [
    "prompt_tuning",
    "mam",
    "ungated_prefix",
    "multi_head_parallel_adapter, official",
    "parallel_adapter, official",
]
#: Models that give a left-padded row its own positions in a plain forward call, or need none.
LEFT = [one for one in FAMILIES if one.name in ("llama", "qwen2", "qwen3", "t5", "t5_gated")]


def law(model, method, padding="right"):
    atol = 1e-5 if hasattr(model.config, "rope_parameters") else 1e-9
    ignores_padding(model, method, batch(model, rows=3, padding=padding, labels=False), atol=atol)


@EACH_FAMILY
@EXAMPLES
def test_random_methods(family, examples):
    explore("padding", family, examples, law)


@EACH_FAMILY
@pytest.mark.parametrize("name", METHODS)
def test_right_padding(family, name):
    model = fresh(family)
    if not refused(model, SMALL[name]):
        law(model, SMALL[name])


@pytest.mark.parametrize("family", LEFT, ids=str)
@pytest.mark.parametrize("name", METHODS)
def test_left_padding(family, name):
    law(fresh(family), SMALL[name], "left")


@pytest.mark.parametrize("name", METHODS)
def test_left_padding_with_a_sliding_window(name):
    law(fresh(family_named("mistral")), SMALL[name], "left")


@pytest.mark.parametrize("name", METHODS)
def test_left_padding_with_positions_given(name):
    model = fresh(family_named("gpt2"))
    call = batch(model, rows=3, padding="left", labels=False)
    call["position_ids"] = (call["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    ignores_padding(model, SMALL[name], call)


@EACH_FAMILY
def test_every_head_that_reads_tokens(family):
    for head in family.heads:
        model = fresh(family, head)
        if "audio" not in head:
            law(model, "mam(length=2, rank=2, mlp=None)")


def test_planted_padding_mask_dropped(monkeypatch):
    real = heads.widen

    def planted(module, query, key, value, mask, *rest):
        return real(module, query, key, value, None if mask is None else torch.ones_like(mask), *rest)

    monkeypatch.setattr(heads, "is_possible", lambda *_: False)
    monkeypatch.setattr(heads, "widen", planted)
    for name in ("bert", "bart"):
        with broken("row 1"):
            law(fresh(family_named(name)), SMALL["prefix_tuning"])


def test_planted_gate_that_lets_padding_in(monkeypatch):
    real = heads.gated
    monkeypatch.setattr(heads, "gated", lambda *given: real(*given[:4], None, given[5], False))
    for name in ("bert", "bart"):
        with broken("row 1"):
            law(fresh(family_named(name)), SMALL["prefix_tuning"])


def test_planted_positions_of_padding(monkeypatch):
    monkeypatch.setattr(entry.PositionHook, "__call__", lambda self, module, args, kwargs: None)
    with broken("row 1"):
        law(fresh(family_named("llama")), SMALL["prefix_tuning"], "left")


def test_planted_prompt_at_the_wrong_end_of_the_mask(monkeypatch):
    real = prompts.LengthenStack.__call__

    def planted(self, module, args, kwargs):
        args, kwargs = real(self, module, args, kwargs)
        kwargs["attention_mask"] = kwargs["attention_mask"].roll(-self.prompts.length, dims=1)
        return args, kwargs

    monkeypatch.setattr(prompts.LengthenStack, "__call__", planted)
    with broken("row 1"):
        law(fresh(family_named("bert")), SMALL["prompt_tuning"])


@pytest.mark.parametrize("name", ["t5", "mistral"])
def test_planted_padding_between_the_prompt_and_the_tokens(monkeypatch, name):
    monkeypatch.setattr(prompts, "order_of", lambda mask, length: None)
    with broken("row 1"):
        law(fresh(family_named(name)), SMALL["prompt_tuning"], "left")


def test_a_call_without_padding_is_no_evidence():
    model = fresh(family_named("bert"))
    with broken("nothing is padded"):
        ignores_padding(model, SMALL["lora"], batch(model))
    with broken("needs a call with a mask"):
        ignores_padding(model, SMALL["lora"], {"input_ids": torch.ones(1, 3, dtype=torch.long)})
