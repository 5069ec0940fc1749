"""Law: folding keeps the function, and unfolding gives back the bits, over the whole space."""

from __future__ import annotations

import pytest
import torch

from laws.support import EACH_LAYER, EXAMPLES, broken, explore, family_named, fresh, refused, tolerance
from unipetl import Method
from unipetl.folding import algebra, edits, live, rewrite
from unipetl.testing import batch
from unipetl.testing.laws import folds_and_unfolds, refuses_cleanly

COMPLETE = {
    "lora": "lora(rank=2, at=all)",
    "learned": "scaled_parallel_adapter(rank=3, activation=model, scale=learned)",
    "ia3": "ia3",
    "bitfit": "bitfit",
    "full": "full",
    "mixed": "lora(rank=2, at=all) + ia3 + parallel_adapter(rank=3, activation=model) + head_only",
}
SPLIT = "parallel_adapter(rank=3, activation=tanh)"


@EACH_LAYER
@EXAMPLES
def test_random_methods(family, examples):
    explore(
        "folding",
        family,
        examples,
        lambda model, method: folds_and_unfolds(model, method, batch(model), atol=tolerance(family)),
    )


@EACH_LAYER
@pytest.mark.parametrize("name", COMPLETE)
def test_what_folds_into_a_plain_model(family, name):
    model = fresh(family)
    if refused(model, COMPLETE[name]):
        pytest.skip("the family has no such places")
    folded = folds_and_unfolds(model, COMPLETE[name], batch(model), atol=tolerance(family))
    assert folded is not None
    assert folded.plain, str(folded)


@EACH_LAYER
def test_an_activation_of_its_own_gets_an_ffn_with_two(family):
    folded = folds_and_unfolds(fresh(family), SPLIT, batch(fresh(family)), atol=tolerance(family))
    assert folded is not None
    assert folded.complete
    assert "keeps its activation (tanh)" in folded.not_plain[0]


@EACH_LAYER
def test_what_does_not_fold_is_refused_and_nothing_touched(family):
    model = fresh(family)
    message = refuses_cleanly(model, "prefix_tuning(length=2, mlp=None) + lora(rank=2)", batch(model))
    assert "share a softmax" in message
    assert "partial=True" in message


@pytest.mark.parametrize(
    ("owner", "name", "fault"),
    [
        (algebra, "_scale", lambda op, like: 1.0),
        (rewrite, "gated", lambda units, activation: units),
        (rewrite, "linear_of", lambda op, like: algebra.LinearChange(like[:, :1] * 0, like[:1] * 0, None)),
    ],
)
def test_planted_wrong_algebra(monkeypatch, owner, name, fault):
    monkeypatch.setattr(owner, name, fault)
    method = "lora(rank=2, scale=3, at=ffn) + parallel_adapter(rank=2, scale=3, activation=silu)"
    with pytest.raises((AssertionError, RuntimeError)):
        folds_and_unfolds(fresh(family_named("t5_gated")), method, batch(fresh(family_named("t5_gated"))))


def test_planted_edit_that_computes_the_old_weight_back(monkeypatch):
    real = edits.SetParameter.apply

    def planted(self, model):
        undo = real(self, model)
        noisy = None if undo.value is None else torch.nn.Parameter(undo.value + 1e-12)
        return edits.SetParameter(undo.path, noisy)

    monkeypatch.setattr(edits.SetParameter, "apply", planted)
    with broken("after unfolding"):
        folds_and_unfolds(fresh(family_named("gpt2")), "lora(rank=2)", batch(fresh(family_named("gpt2"))))


def test_planted_conflict_that_is_not_seen(monkeypatch):
    monkeypatch.setattr("unipetl.folding.decide._conflicts", lambda *_: ())
    both = {
        "modifications": [
            {"representation": "attention.output", "form": {"low_rank": {"rank": 2, "init": "bert"}}},
            {
                "representation": "attention.output",
                "form": {"bottleneck": {"rank": 2, "init": "bert"}},
                "insertion": "sequential",
            },
        ]
    }
    with broken("the result after folding"):
        folds_and_unfolds(fresh(family_named("bert")), Method.from_plain(both), batch(fresh(family_named("bert"))))


def test_planted_flags_that_are_not_put_back(monkeypatch):
    real = live._restore

    def planted(model, fold):
        real(model, fold)
        next(model.parameters()).requires_grad_(True)

    monkeypatch.setattr(live, "_restore", planted)
    with broken("flags"):
        folds_and_unfolds(fresh(family_named("bert")), "lora(rank=2)", batch(fresh(family_named("bert"))))
