"""Law: rows routed together are each what its attachment computes alone: forward, generated, and in training."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import unipetl
from laws.support import EACH_FAMILY, EACH_LAYER, EXAMPLES, GENERATING, broken, family_named, fresh, refused
from unipetl.attaching import grouped, heads, own_rows, routing, row_prompts
from unipetl.testing import SMALL, batch, prompt
from unipetl.testing.laws import attach_all, generates_rows_alone, routes_rows_alone, trains_rows_alone
from unipetl.testing.strategies import methods

#: Two of one structure, another rank, heads with and without an MLP and of other lengths, everything else once.
MIX = [
    "lora(rank=2, at=all)",
    "lora(rank=2, at=all)",
    "lora(rank=3)",
    SMALL["mam"],
    "prefix_tuning(length=5, mlp=6)",
    "multi_head_parallel_adapter(rank=3, variant=official)",
    "houlsby(rank=2)",
    "ia3()",
    "bitfit",
    "prompt_tuning(length=4)",
    "prompt_tuning(length=2)",
    "head_only",
]


def exactness(family):
    """Rotary models compute norms and angles in float32."""
    return 1e-5 if family.name in ("llama", "mistral", "qwen2", "qwen3") else 1e-9


def taken(model, wanted):
    return [one for one in wanted if not refused(model, one)]


@EACH_FAMILY
@pytest.mark.parametrize("padding", [pytest.param("right", marks=pytest.mark.slow), "left"])  # stacks pad right
def test_a_mix_of_methods(family, padding):
    model = fresh(family)
    names = attach_all(model, taken(model, MIX))
    rows = [None, *names, names[0], None]
    call = batch(model, rows=len(rows), padding=padding, labels=False)
    routes_rows_alone(model, rows, call, atol=exactness(family))


@EACH_LAYER
def test_a_mix_of_stacks(family):
    model = fresh(family)
    names = attach_all(model, taken(model, MIX[:8] + MIX[9:11]), train_head=False)
    rows = [[names[1], names[3]], [names[3], names[0], names[2]], names, names[::-1], None, names[4]]
    call = batch(model, rows=len(rows), padding="right", labels=False)
    routes_rows_alone(model, rows, call, atol=exactness(family))


@EACH_LAYER
def test_the_order_of_stacking_is_the_row_s(family):
    model = fresh(family)
    texts = ["pfeiffer(rank=2)", "pfeiffer(rank=2)", "houlsby(rank=1)", "parallel_adapter(rank=2)"]
    names = attach_all(model, texts, train_head=False)
    rows = [names, names[::-1], names[:2], names[1::-1], names[2], names[3], [names[3], names[0]]]
    routes_rows_alone(model, rows, batch(model, rows=len(rows), labels=False), atol=exactness(family))


@EACH_LAYER
@EXAMPLES
def test_random_methods(family, examples):
    pristine = fresh(family)

    @settings(max_examples=examples, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(
        drawn=st.lists(methods(pristine), min_size=2, max_size=3),
        picks=st.lists(st.integers(-1, 2), min_size=3, max_size=5),
    )
    def run(drawn, picks):
        model = fresh(family)
        names = attach_all(model, drawn)
        rows = [None if pick < 0 else names[pick % len(names)] for pick in picks]
        call = batch(model, rows=len(rows), padding="right", labels=False)
        routes_rows_alone(model, rows, call, atol=exactness(family))

    run()


@GENERATING
@pytest.mark.parametrize("beams", [1, 3])
def test_generated_text(family, beams):
    model = fresh(family)
    names = attach_all(model, taken(model, MIX[:5] + MIX[8:11]))
    rows = [*names, None, names[0]]
    side = "left" if family.kind == "decoder" else "right"
    generates_rows_alone(model, rows, prompt(model, rows=len(rows), padding=side), beams=beams)


@EACH_LAYER
def test_gradients(family):
    model = fresh(family).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for name in ("attention_dropout", "dropout", "activation_dropout", "resid_pdrop", "embd_pdrop", "attn_pdrop"):
        for module in model.modules():
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    names = attach_all(model, taken(model, MIX))
    rows = [names[0], None, *names[:-1], names[0]]
    trains_rows_alone(model, rows, batch(model, rows=len(rows), labels=False), atol=exactness(family) * 10)


# --------------------------------------------------------------------------------------------- planted


def bert(wanted, **attaching):
    model = fresh(family_named("bert"))
    return model, attach_all(model, wanted, **attaching)


def test_planted_stack_of_the_first_only(monkeypatch):
    real = grouped.Group._stacked
    monkeypatch.setattr(grouped.Group, "_stacked", lambda self: self.distinct[0])
    model, names = bert(["lora(rank=2)", "lora(rank=2)"], train_head=False)
    with broken("rows routed together"):
        routes_rows_alone(model, names, batch(model, labels=False))
    monkeypatch.setattr(grouped.Group, "_stacked", real)
    routes_rows_alone(model, names, batch(model, labels=False))


def test_planted_change_that_reaches_every_row(monkeypatch):
    monkeypatch.setattr(grouped.Group, "whole", property(lambda self: True))
    model, names = bert(["lora(rank=2)"], train_head=False)
    with broken("rows routed together"):
        routes_rows_alone(model, [None, names[0]], batch(model, labels=False))


def test_planted_keys_that_other_rows_see(monkeypatch):
    monkeypatch.setattr(heads, "hidden_from", lambda items, batch, device: None)
    model, names = bert(["prefix_tuning(length=2, mlp=None)", "prefix_tuning(length=4, mlp=None)"])
    with broken("rows routed together"):
        routes_rows_alone(model, names, batch(model, labels=False))


def test_planted_prompt_that_is_not_hidden(monkeypatch):
    monkeypatch.setattr(row_prompts.RowPrompts, "mask", lambda self, like: like.new_ones(len(like), self.length))
    model, names = bert(["prompt_tuning(length=2)", "prompt_tuning(length=4)"])
    with broken("rows routed together"):
        routes_rows_alone(model, names, batch(model, labels=False))


def test_planted_biases_of_another_row(monkeypatch):
    real = own_rows.OwnRows.of
    monkeypatch.setattr(own_rows.OwnRows, "of", lambda self, name: _first(real(self, name), self.rows.count))
    model, names = bert(["bitfit", "bitfit"])
    with broken("rows routed together"):
        routes_rows_alone(model, names, batch(model, labels=False))


def _first(values, rows):
    return values if values is None or values.shape[0] != rows else values[:1].expand_as(values)


def test_planted_levels_in_another_order(monkeypatch):
    real = routing._groups
    monkeypatch.setattr(routing, "_groups", lambda names, *rest: real(names[::-1], *rest))
    model, names = bert(["pfeiffer(rank=2)", "pfeiffer(rank=2)"], train_head=False)
    with broken("rows routed together"):
        routes_rows_alone(model, [names, names[::-1]], batch(model, labels=False))


def test_planted_gradient_that_is_cut(monkeypatch):
    real = grouped.Group._stacked

    def planted(self):
        result = real(self)
        result.delta._parameters["up"] = result.delta._parameters["up"].detach()
        return result

    monkeypatch.setattr(grouped.Group, "_stacked", planted)
    model, names = bert(["lora(rank=2)", "lora(rank=2)"], train_head=False)
    with broken("the gradient of"):
        trains_rows_alone(model, names, batch(model, labels=False))


def test_planted_beams_that_are_shared_out_in_turn(monkeypatch):
    def planted(rows, each, device):
        return torch.cat([torch.tensor(rows) + number * 2 for number in range(each)])

    monkeypatch.setattr(grouped, "places", planted)
    model = fresh(family_named("bart"))
    names = attach_all(model, ["prefix_tuning(length=3, mlp=None)"])
    with broken("other tokens|the scores"):
        generates_rows_alone(model, [None, names[0]], prompt(model), beams=3)
    assert unipetl.attachments(model)[0].name == names[0]
