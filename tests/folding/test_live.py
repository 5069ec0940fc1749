"""Folding live models: precision, several attachments, what stays, what is refused, and what is left behind."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import unipetl
from unipetl.errors import FoldError
from unipetl.folding import examine, fold, unfold
from unipetl.testing import batch, build
from unipetl.testing.compare import close, differ, outputs, same, scatter
from unipetl.testing.laws import Snapshot

MAM = "mam(length=2, rank=3, mlp=None, activation=model)"


def model_with(*methods, family="bart", dtype=torch.float64, **settings):
    model = build(family, dtype=dtype, **settings)
    for place, method in enumerate(methods):
        scatter(unipetl.attach(model, method, name="abcdef"[place], train_head=False), seed=place)
    return model


@pytest.mark.parametrize("family", ["roberta", "bart", "gpt2", "t5_gated", "llama"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_folds_as_exactly_as_it_computes_and_unfolds_to_the_bit(family, dtype):
    method = "lora(rank=2, at=all) + parallel_adapter(rank=3, activation=model)"
    model = model_with(method, family=family, dtype=dtype)
    call = batch(model)
    exact = copy.deepcopy(model).double()
    truth, apart = outputs(exact, call), outputs(model, call)
    bits = {name: value.clone() for name, value in model.state_dict().items()}
    fold(model)
    folded = outputs(model, call)
    error = lambda found: float((found.double() - truth).abs().mean())  # noqa: E731
    assert error(folded) < 2 * error(apart) + 1e-3
    unfold(model)
    for name, value in model.state_dict().items():
        same(value, bits[name], name)
    same(outputs(model, call), apart, "the result")


def test_twenty_folds_do_not_drift():
    model = model_with("lora(rank=2, at=all)", dtype=torch.bfloat16)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for _ in range(20):
        fold(model)
        unfold(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("family", ["bert", "bart", "mbart", "llama"])
def test_stacked_attachments_fold_together_and_in_parts(family):
    first = "lora(rank=2, at=all) + parallel_adapter(rank=2, activation=model)"
    call = batch(build(family, dtype=torch.float64))
    close_enough = 1e-5 if family == "llama" else 1e-9
    model = model_with(first, "lora(rank=3) + ia3", "adapter(rank=2, activation=identity)", family=family)
    snapshot, wanted = Snapshot.of(model), outputs(model, call)
    assert fold(model).plain or family == "llama"
    close(outputs(model, call), wanted, "all three", close_enough)
    unfold(model)
    snapshot.require_unchanged(model, "after unfolding three")
    fold(model, "a", partial=True)
    fold(model, "b", partial=True)
    close(outputs(model, call), wanted, "one after the other", close_enough)
    unfold(model)
    unfold(model)
    snapshot.require_unchanged(model, "after unfolding both")


def test_a_factor_of_another_attachment_keeps_an_earlier_change_from_folding_late():
    model = model_with("ia3", "lora(rank=2, at='attention.value')")
    wanted = outputs(model, batch(model))
    assert "reads the same h without it" in _refused(model, "b")
    fold(model, "a")
    fold(model, "b")
    close(outputs(model, batch(model)), wanted, "in the order of stacking")


def _refused(model, name):
    try:
        fold(model, name)
    except FoldError as error:
        return str(error)
    unfold(model)
    return ""


def test_partial_leaves_a_method_that_can_be_saved_and_trained(tmp_path):
    model = model_with(MAM)
    call = batch(model)
    wanted = outputs(model, call)
    report = fold(model, partial=True)
    assert [(row.what, bool(row.into)) for row in report.rows] == [("head_attention", False), ("bottleneck", True)]
    left = unipetl.attachments(model)
    assert [one.method for one in left] == [unipetl.parse("prefix_tuning(length=2, mlp=None)")]
    close(outputs(model, call), wanted, "a folded adapter and a prefix that stays")
    unipetl.save(model, tmp_path)
    again = copy.deepcopy(model)
    unipetl.detach(again)
    unipetl.load(again, tmp_path)
    same(outputs(again, call), outputs(model, call), "what stayed, saved and loaded")
    with torch.no_grad():
        left[0].tensors()["encoder.0.self_attention.heads/parallel_head_attention/key"].add_(1)
    trained = outputs(model, call)
    unfold(model)
    differ(outputs(model, call), wanted, "the prefix that was trained while the adapter was folded")
    close(outputs(model, call), trained, "the trained prefix beside the unfolded adapter")


def test_a_fold_with_a_reparametrised_prefix_left():
    model = model_with("mam(length=2, rank=3, mlp=4, activation=model)")
    wanted = outputs(model, batch(model))
    fold(model, partial=True)
    close(outputs(model, batch(model)), wanted, "a prefix by an MLP that stays")
    unfold(model)
    same(outputs(model, batch(model)), wanted, "unfolded")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("method", ["lora(rank=2)", "bitfit", "parallel_adapter(rank=2)"])
def test_what_is_not_finite_is_refused(bad, method):
    model = model_with(method)
    tensor = list(unipetl.attachments(model)[0].tensors().values())[3]
    with torch.no_grad():
        tensor.view(-1)[0] = bad
    before = list(model.named_modules())
    with pytest.raises(FoldError, match="NaN or infinite"):
        fold(model)
    assert list(model.named_modules()) == before
    assert torch.isnan(tensor).any() or torch.isinf(tensor).any()


def test_a_weight_that_overflows_is_refused():
    model = model_with("lora(rank=2)", dtype=torch.float16)
    with torch.no_grad():
        for tensor in unipetl.attachments(model)[0].tensors().values():
            tensor.fill_(1e4)
    snapshot = Snapshot.of(model)
    with pytest.raises(FoldError, match="not finite in float16"):
        fold(model)
    snapshot.require_unchanged(model, "after an overflow")


class Packed(nn.Module):
    """A linear map whose weight is int8 and a scale, as quantised modules have it."""

    def __init__(self, dense, linear=True):
        super().__init__()
        self.in_features, self.out_features = dense.in_features, dense.out_features
        weight = dense.weight.detach()
        self.scale = float(weight.abs().max()) / 127
        self.register_buffer("packed", (weight / self.scale).round().to(torch.int8))
        self.bias = dense.bias
        self.linear = linear

    def forward(self, x):
        y = nn.functional.linear(x, self.packed.to(x.dtype) * self.scale, self.bias)
        return y if self.linear else y.square()


@pytest.mark.parametrize("linear", [True, False])
def test_quantised_weights_are_refused_and_made_dense_on_request(linear):
    model = build("bart", dtype=torch.float64)
    layer = model.model.encoder.layers[0].self_attn
    layer.q_proj = Packed(layer.q_proj, linear)
    scatter(unipetl.attach(model, "lora(rank=2)"))
    snapshot, wanted = Snapshot.of(model), outputs(model, batch(model))
    with pytest.raises(FoldError, match=r"packed form.*dequantize=True"):
        fold(model)
    if not linear:
        with pytest.raises(FoldError, match="computes no linear map"):
            fold(model, dequantize=True)
    else:
        assert not examine(model, dequantize=True).plain
        fold(model, dequantize=True)
        assert type(layer.q_proj) is nn.Linear
        close(outputs(model, batch(model)), wanted, "dequantised and folded")
        unfold(model)
    snapshot.require_unchanged(model, "afterwards")


def test_a_tied_weight_changes_where_it_is_folded_and_nowhere_else():
    model = build("bart", dtype=torch.float64)
    layers = model.model.encoder.layers
    layers[1].self_attn.q_proj.weight = layers[0].self_attn.q_proj.weight
    method = {"modifications": [{"representation": {"name": "attention.query", "stack": "encoder", "layers": [0]},
                                 "form": {"low_rank": {"rank": 2}}}]}  # fmt: skip
    scatter(unipetl.attach(model, unipetl.Method.from_plain(method)))
    snapshot, wanted = Snapshot.of(model), outputs(model, batch(model))
    with pytest.raises(FoldError, match="was tied to"):
        fold(model, plain=True)
    report = fold(model)
    assert "was tied to" in report.not_plain[0]
    close(outputs(model, batch(model)), wanted, "one of two tied weights folded")
    unfold(model)
    assert layers[1].self_attn.q_proj.weight is layers[0].self_attn.q_proj.weight
    snapshot.require_unchanged(model, "after unfolding")


def test_a_module_at_two_places_is_refused():
    model = build("bart", dtype=torch.float64)
    layers = model.model.encoder.layers
    layers[1].fc1 = layers[0].fc1
    scatter(unipetl.attach(model, "lora(rank=2, at='ffn.down')"))
    fold(model)
    unfold(model)
    unipetl.detach(model)
    scatter(unipetl.attach(model, "parallel_adapter(rank=2, activation=model)"))
    with pytest.raises(FoldError, match="one module at several places"):
        fold(model)


def test_a_folded_model_is_bare_and_says_what_it_was():
    model = model_with(MAM, "lora(rank=2)")
    unipetl.activate(model, "a")
    with pytest.raises(FoldError, match="attachment 'b' is not active"):
        fold(model, "b")
    unipetl.activate(model, "b")
    report = fold(model)
    assert "folds into the weights before it" in str(report)
    assert not report.plain  # the other attachment is still there
    assert report.to_dict()["complete"] is True


def test_an_idle_attachment_keeps_the_ffn_as_wide_as_it_is():
    model = model_with("lora(rank=2, at=ffn)", "parallel_adapter(rank=2, activation=model)")
    unipetl.activate(model, "b")
    with pytest.raises(FoldError, match="attachment 'a' is made for an FFN of the width it has now; detach it first"):
        fold(model)


def test_unfolding_wants_the_model_as_folding_left_it():
    model = model_with("lora(rank=2)")
    with pytest.raises(FoldError, match="nothing to unfold"):
        unfold(model)
    fold(model)
    with pytest.raises(FoldError, match="nothing to fold"):
        fold(model)
    unipetl.attach(model, "ia3", name="new")
    with pytest.raises(FoldError, match="detach 'new' first"):
        unfold(model)
    unipetl.detach(model, "new")
    unfold(model)
    fold(model, keep=False)
    with pytest.raises(FoldError, match="nothing to unfold"):
        unfold(model)


def test_an_untied_head_stays_untied():
    model = build("gpt2", dtype=torch.float64)
    scatter(unipetl.attach(model, "head_only + lora(rank=2)"))
    with torch.no_grad():
        model.lm_head.weight.add_(0.1)
    snapshot, wanted = Snapshot.of(model), outputs(model, batch(model))
    assert fold(model).settings == {"tie_word_embeddings": False}
    close(outputs(model, batch(model)), wanted, "folded with a head of its own")
    unfold(model)
    assert model.config.tie_word_embeddings is True
    snapshot.require_unchanged(model, "after unfolding")


def test_a_folded_model_can_be_copied_and_trained():
    model = model_with("parallel_adapter(rank=2, activation=tanh)")
    fold(model)
    wanted = outputs(model, batch(model))
    for copied in (copy.deepcopy(model), copy.deepcopy(copy.deepcopy(model))):
        same(outputs(copied, batch(copied)), wanted, "a copy")
        unfold(copied)
        assert unipetl.attachments(copied)
    assert all(parameter.requires_grad for parameter in model.parameters())
    model.train()(**batch(model)).loss.backward()


def test_generation_after_a_fold():
    model = model_with("lora(rank=2, at=all) + parallel_adapter(rank=2, activation=model)")
    call = {key: value for key, value in batch(model, labels=False).items() if not key.startswith("decoder")}
    before = model.generate(**call, num_beams=2, max_new_tokens=6)
    fold(model)
    assert torch.equal(model.generate(**call, num_beams=2, max_new_tokens=6), before)


@pytest.mark.parametrize("layers", [(0,), (-1,)])
def test_layers_without_an_adapter_get_units_that_do_nothing(layers):
    method = unipetl.Method.from_plain(
        {"modifications": [{"representation": {"name": "ffn", "layers": list(layers)}, "insertion": "parallel",
                            "form": {"bottleneck": {"rank": 5, "activation": "model"}}}]}
    )  # fmt: skip
    model = model_with(method, family="t5")
    wanted = outputs(model, batch(model))
    report = fold(model)
    assert report.plain
    assert report.settings == {"d_ff": 29}
    assert {layer.layer[-1].DenseReluDense.wi.out_features for layer in model.encoder.block} == {29}
    close(outputs(model, batch(model)), wanted, "padded FFNs")


def test_a_linear_change_beside_an_ffn_is_twice_as_many_units():
    one = {"representation": "ffn", "insertion": "parallel", "form": {"low_rank": {"rank": 2}}}
    method = unipetl.Method.from_plain({"modifications": [one]})
    for family, wanted in {"bert": {"intermediate_size": 28}, "gpt2": {"n_inner": 28}, "t5": {"d_ff": 28}}.items():
        assert fold(model_with(method, family=family)).settings == wanted


def test_an_ffn_of_unknown_activation_takes_no_model_activation():
    class Sine(nn.Module):
        def forward(self, z):
            return z.sin()

    model = build("bart", dtype=torch.float64)
    for layer in (*model.model.encoder.layers, *model.model.decoder.layers):
        layer.activation_fn = Sine()
    with pytest.raises(unipetl.errors.PlanError, match=r"Sine at .* is none of relu, gelu"):
        unipetl.attach(model, "parallel_adapter(rank=2, activation=model)")
    scatter(unipetl.attach(model, "parallel_adapter(rank=2, activation=gelu)"))
    wanted = outputs(model, batch(model))
    assert "beside the FFN's" in fold(model).not_plain[0]
    close(outputs(model, batch(model)), wanted, "beside an unknown activation")
