"""Learned keys beside the model's own equal one softmax over both, and are computed so where a kernel allows."""

import inspect
import itertools

import pytest
import torch
from torch import nn

import unipetl
from equivalence.tiny import MAM, PREFIX, attached, model, padded, words
from unipetl.attaching import gated as module
from unipetl.attaching import heads
from unipetl.attaching.gated import gated

TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5, torch.bfloat16: 6e-2}


def one_softmax(query, own, learned, addends, scaling):
    """Return the attention to learned and own keys by the definition, in float64; every head has its own keys."""
    key, value = (torch.cat([p.expand(k.shape[0], -1, -1, -1), k], dim=2) for p, k in zip(learned, own, strict=True))
    each = query.shape[1] // key.shape[1]
    logits = query @ key.repeat_interleave(each, dim=1).transpose(-1, -2) * scaling
    logits[..., -addends.shape[-1] :] += addends
    return (logits.softmax(dim=-1) @ value.repeat_interleave(each, dim=1)).transpose(1, 2)


def masks(kind, batch, heads, n, m):
    """Return a mask as a model gives it, and what it adds to the scores."""
    some = torch.rand(batch, 1, n, m) > 0.4
    if kind in ("none", "causal"):
        seen = torch.ones(n, m).tril() if kind == "causal" and n > 1 else torch.ones(n, m)
        return None, torch.where(seen.bool(), 0.0, float("-inf")).double()
    if kind == "boolean":
        some[0] = False  # a row that sees nothing of its own
        return some, torch.where(some, 0.0, float("-inf")).double()
    if kind == "of heads":
        bias = torch.randn(batch, heads, n, m)
        return bias, bias.double()
    bias = torch.where(some[:, :, :1], 0.0, float("-inf"))
    return bias, bias.double()


@pytest.mark.parametrize("kind", ["none", "causal", "boolean", "additive", "of heads"])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_values_and_gradients_are_those_of_one_softmax(kind, dtype):
    torch.manual_seed(0)
    batch, size, length, scaling = 3, 8, 6, 0.31
    for (count, key_heads), (n, m), rows in itertools.product(((4, 4), (4, 2)), ((1, 7), (5, 5), (5, 7)), (1, batch)):
        if kind == "causal" and n == 5 and m == 7:
            continue
        mask, addends = masks(kind, batch, count, n, m)
        mask = mask if mask is None or mask.dtype == torch.bool else mask.to(dtype)
        addends = addends if mask is None or mask.dtype == torch.bool else mask.double()
        shapes = ((batch, count, n), (batch, key_heads, m), (batch, key_heads, m), *((rows, key_heads, length),) * 2)
        given = [torch.randn(*shape, size, dtype=dtype, requires_grad=True) for shape in shapes]
        exact = [one.detach().double().requires_grad_(True) for one in given]
        expected = one_softmax(exact[0], exact[1:3], exact[3:], addends, scaling)
        slope = torch.randn_like(expected)

        def compute(given=given, mask=mask):
            own, learned = (given[1], given[2]), (given[3], given[4])
            return gated(nn.Module(), given[0], own, learned, mask, scaling, kind == "causal")

        result = compute()
        found = torch.autograd.grad(result, given, slope.to(dtype))
        close = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype] * 5, "check_dtype": False}
        with torch.no_grad():
            torch.testing.assert_close(compute(), expected, **close)
        torch.testing.assert_close(result, expected, **close)
        torch.testing.assert_close(list(found), list(torch.autograd.grad(expected, exact, slope)), **close)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_under_autocast_it_is_as_exact_as_in_half_precision(dtype):
    torch.manual_seed(0)
    given = [torch.randn(2, 3, n, 8, requires_grad=True) for n in (5, 7, 7, 6, 6)]
    q, k, v, pk, pv = (one.to(dtype) for one in given)
    exact = [one.detach().double().requires_grad_(True) for one in given]
    expected = one_softmax(exact[0], exact[1:3], exact[3:], torch.zeros(5, 7).double(), 0.4)
    slope = torch.randn_like(expected)
    with torch.autocast("cpu", torch.bfloat16):
        result = gated(nn.Module(), q, (k, v), (pk, pv), None, 0.4, False)
        found = torch.autograd.grad(result, given, slope.to(result.dtype))
    assert result.dtype == torch.bfloat16
    for one, other in zip((result, *found), (expected, *torch.autograd.grad(expected, exact, slope)), strict=True):
        one, other = one.detach().double(), other.detach()
        assert float((one - other).norm() / other.norm()) < 0.008


def test_unused_cache_behind_a_causal_sequence_is_not_seen():
    torch.manual_seed(0)
    q, k, v, pk, pv = (torch.randn(1, 2, n, 4, dtype=torch.float64) for n in (3, 5, 5, 2, 2))
    addends = torch.where(torch.ones(3, 3).tril().bool(), 0.0, float("-inf")).double()
    expected = one_softmax(q, (k[:, :, :3], v[:, :, :3]), (pk, pv), addends, 0.5)
    torch.testing.assert_close(gated(nn.Module(), q, (k, v), (pk, pv), None, 0.5, True), expected)


def test_a_mask_changed_in_place_is_another_mask():
    torch.manual_seed(0)
    q, k, v, pk, pv = (torch.randn(1, 2, n, 4, dtype=torch.float64) for n in (3, 5, 5, 2, 2))
    mask = torch.ones(1, 1, 3, 5, dtype=torch.bool)
    first = gated(nn.Module(), q, (k, v), (pk, pv), mask, 0.5, False)
    mask[..., 2:] = False
    assert not torch.allclose(gated(nn.Module(), q, (k, v), (pk, pv), mask, 0.5, False), first)


@pytest.mark.parametrize("family", ["roberta", "bart", "llama", "qwen3"])
@pytest.mark.parametrize("method", [PREFIX, MAM])
@pytest.mark.parametrize("side", ["none", "left", "right"])
def test_models_compute_it_so_and_equal_to_keys_in_front(monkeypatch, family, method, side):
    bare, inputs = model(family, "base"), padded(words(), side)
    calls = []

    def counted(*given):
        calls.append(given)
        return gated(*given)

    with attached(bare, method) as tensors:
        monkeypatch.setattr(heads, "gated", counted)
        result = bare(**inputs).last_hidden_state
        found = torch.autograd.grad(result.square().sum(), list(tensors.values()))
        assert calls
        monkeypatch.setattr(heads, "is_possible", lambda *_: False)
        expected = bare(**inputs).last_hidden_state
        torch.testing.assert_close(result, expected, rtol=0, atol=1e-10)
        expected = torch.autograd.grad(expected.square().sum(), list(tensors.values()))
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


def test_planted_wrong_share_of_the_learned_keys(monkeypatch):
    bare, inputs = model("roberta", "base"), padded(words(), "left")
    real = module._logits
    with attached(bare, PREFIX):
        expected = bare(**inputs).last_hidden_state
        monkeypatch.setattr(module, "_logits", lambda *given, **named: real(*given, **named) + 0.01)
        assert not torch.allclose(bare(**inputs).last_hidden_state, expected, atol=1e-4)


@pytest.mark.parametrize(
    "what", ["dropout", "softcap", "another attention", "gradient of the mask", "a mask of 2 axes", "no flash"]
)
def test_what_the_kernel_cannot_do_is_left_to_others(what):
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    q = torch.randn(1, 2, 3, 4)
    mask, inner, kwargs = torch.zeros(1, 1, 3, 3), sdpa_attention_forward, {}
    assert module.is_possible(inner, q, q, q, mask, kwargs)
    if what in ("dropout", "softcap"):
        kwargs = {what: 0.1}
    elif what == "another attention":
        inner = unipetl.attach
    elif what == "no flash":
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            assert not module.is_possible(inner, q, q, q, mask, kwargs)
        return
    else:
        mask = mask.requires_grad_(True) if what == "gradient of the mask" else mask[0, 0]
    assert not module.is_possible(inner, q, q, q, mask, kwargs)


def test_the_attention_in_force_takes_what_is_known_here():
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    named = inspect.signature(sdpa_attention_forward).parameters
    known = {"module", "query", "key", "value", "attention_mask", "dropout", "scaling", "is_causal", "kwargs"}
    assert set(named) <= known | set(module.UNKNOWN)
