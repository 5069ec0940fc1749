"""Law: generated text is the same with a cache as without one, greedy or with beams, whatever the padding."""

from __future__ import annotations

import pytest
import torch

import unipetl
from laws.support import EXAMPLES, GENERATING, broken, explore, family_named, fresh, refused
from unipetl.attaching import gated, heads, prompts
from unipetl.errors import AttachError
from unipetl.testing import SMALL, prompt
from unipetl.testing.compare import close, scatter
from unipetl.testing.laws.generation import generate, generates_the_same_without_cache

METHODS = ["mam", "prompt_tuning", "lora everywhere", "multi_head_parallel_adapter, official", "ungated_prefix"]


@GENERATING
@EXAMPLES
def test_random_methods(family, examples):
    explore(
        "generation",
        family,
        examples,
        lambda model, method: generates_the_same_without_cache(model, method, prompt(model)),
    )


@GENERATING
@pytest.mark.parametrize("name", METHODS)
def test_greedy_and_beams(family, name):
    for beams in (1, 3):
        model = fresh(family)
        if not refused(model, SMALL[name]):
            generates_the_same_without_cache(model, SMALL[name], prompt(model, length=6), beams=beams)


@GENERATING
@pytest.mark.parametrize("name", METHODS[:2])
def test_padded_prompts(family, name):
    model = fresh(family)
    if not refused(model, SMALL[name]):
        side = "left" if family.kind == "decoder" else "right"
        generates_the_same_without_cache(model, SMALL[name], prompt(model, padding=side), beams=2)


@GENERATING
@pytest.mark.parametrize("name", ["mam", "lora everywhere", "multi_head_parallel_adapter, official"])
def test_static_cache(family, name):
    generates_the_same_without_cache(fresh(family), SMALL[name], prompt(fresh(family)), cache="static")


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_prompt_in_a_static_cache_is_refused_with_the_reason(name):
    model = fresh(family_named(name))
    with pytest.raises(AttachError, match="static"):
        generates_the_same_without_cache(model, SMALL["prompt_tuning"], prompt(model), cache="static")


def row_generates_alone(model, method, call):
    """Law: a row of a padded prompt goes on as it does alone."""
    scatter(unipetl.attach(model, method))
    _, scores = generate(model, call)
    for row, mask in enumerate(call["attention_mask"].bool()):
        alone = {name: value[row : row + 1][:, mask] for name, value in call.items()}
        _, wanted = generate(model, alone)
        close(scores[row], wanted[0], f"row {row} of a padded prompt", 1e-8)


@pytest.mark.parametrize("family", list(map(family_named, ["gpt2", "llama", "mistral", "qwen2", "qwen3"])), ids=str)
@pytest.mark.parametrize("name", METHODS)
def test_left_padded_rows_go_on_as_alone(family, name):
    model = fresh(family)
    row_generates_alone(model, SMALL[name], prompt(model, padding="left"))


def test_planted_prefix_that_enters_the_cache_once_only(monkeypatch):
    real = heads.prepend

    def planted(items, query, key, value):
        return real(items, query, key, value) if query.shape[2] > 1 else (query, *_unlearned(items, key, value))

    monkeypatch.setattr(heads, "is_possible", lambda *_: False)
    monkeypatch.setattr(heads, "prepend", planted)
    model = fresh(family_named("gpt2"))
    with broken("with a cache"):
        generates_the_same_without_cache(model, SMALL["prefix_tuning"], prompt(model))


def _unlearned(items, key, value):
    length = sum(heads._length(item) for item in items)
    return (torch.nn.functional.pad(tensor, (0, 0, length, 0)) for tensor in (key, value))


def test_planted_prompt_without_its_mask_when_cached(monkeypatch):
    monkeypatch.setattr(prompts, "_past_length", lambda cache: 0)
    model = fresh(family_named("gpt2"))
    with pytest.raises((unipetl.errors.CheckError, RuntimeError)):
        generates_the_same_without_cache(model, SMALL["prompt_tuning"], prompt(model))


def test_planted_mask_that_lets_padding_in(monkeypatch):
    monkeypatch.setattr(heads, "is_possible", lambda *_: False)
    monkeypatch.setattr(heads, "widen", _without_padding_mask(heads.widen))
    model = fresh(family_named("llama"))
    with broken("of a padded prompt"):
        row_generates_alone(model, SMALL["prefix_tuning"], prompt(model, padding="left"))


def test_planted_gate_that_lets_padding_in(monkeypatch):
    real = heads.gated

    def planted(module, query, own, learned, mask, *rest):
        return real(
            module, query, own, learned, None if mask is None else torch.zeros_like(mask, dtype=query.dtype), *rest
        )

    monkeypatch.setattr(heads, "gated", planted)
    with broken("of a padded prompt"):
        model = fresh(family_named("llama"))
        row_generates_alone(model, SMALL["prefix_tuning"], prompt(model, padding="left"))


@pytest.mark.parametrize("family", list(map(family_named, ["gpt2", "llama", "bart", "qwen3"])), ids=str)
@pytest.mark.parametrize("name", ["prefix_tuning", "mam"])
def test_learned_keys_beside_a_large_cache(monkeypatch, family, name):
    monkeypatch.setattr(gated, "SMALL", 0)  # as if every cache were large
    model = fresh(family)
    generates_the_same_without_cache(model, SMALL[name], prompt(model))


def test_planted_gate_that_forgets_the_learned_keys_when_cached(monkeypatch):
    real = heads.gated

    def planted(module, query, own, learned, *rest):
        learned = learned if query.shape[2] > 1 else (learned[0] * 0, learned[1])
        return real(module, query, own, learned, *rest)

    monkeypatch.setattr(heads, "gated", planted)
    monkeypatch.setattr(gated, "SMALL", 0)
    model = fresh(family_named("gpt2"))
    with broken("with a cache"):
        generates_the_same_without_cache(model, SMALL["prefix_tuning"], prompt(model))


def _without_padding_mask(real):
    def planted(module, query, key, value, mask, length, implementation, kwargs):
        mask = None if mask is None else torch.ones_like(mask)
        return real(module, query, key, value, mask, length, implementation, kwargs)

    return planted
