"""What an MLP makes of its table is computed once for a sequence, and never outlives a change."""

import copy
import pickle  # noqa: TID251

import pytest
import torch

import unipetl
from unipetl.forms.head_attention import HeadReparametrization
from unipetl.forms.kept import Kept
from unipetl.testing import build

PREFIX = "prefix_tuning(length=3, mlp=4)"


@pytest.fixture
def counted(monkeypatch):
    calls = []
    real = HeadReparametrization._computed

    def computed(self, rows):
        calls.append(rows)
        return real(self, rows)

    monkeypatch.setattr(HeadReparametrization, "_computed", computed)
    return calls


@pytest.fixture
def decoder():
    model = build("gpt2", "causal_lm", dtype=torch.float64).eval()
    unipetl.attach(model, PREFIX)
    return model


def generate(model, **options):
    ids = torch.tensor([[5, 6, 7], [8, 9, 10]])
    return model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, min_new_tokens=6, **options)


def test_once_for_a_generation_and_once_for_a_forward_pass(counted, decoder):
    expected = generate(decoder, use_cache=False)
    counted.clear()
    assert torch.equal(generate(decoder), expected)
    assert len(counted) == 1
    counted.clear()
    with torch.no_grad():
        decoder(torch.tensor([[5, 6]]))
        decoder(torch.tensor([[5, 6]]))
    assert len(counted) == 2


def test_a_change_in_any_way_is_seen_by_the_next_sequence(decoder):
    ids = torch.tensor([[5, 6, 7]])
    parameters = [one for name, one in decoder.named_parameters() if "unipetl" in name]
    changes = (
        lambda one: one.add_(0.5),
        lambda one: one.data.mul_(-2),  # leaves no version behind
        lambda one: setattr(one, "data", one.data + 0.25),
    )
    with torch.no_grad():
        before = decoder(ids).logits
        for change in changes:
            for one in parameters:
                change(one)
            after = decoder(ids).logits
            assert not torch.allclose(after, before, atol=1e-9)
            unkept = copy.deepcopy(decoder)(ids).logits
            assert torch.equal(after, unkept)
            before = after


def test_a_change_between_two_steps_is_seen_at_once(decoder):
    first = next(one for name, one in decoder.named_parameters() if "unipetl" in name)
    with torch.no_grad():
        cache = decoder(torch.tensor([[5, 6, 7]]), use_cache=True).past_key_values
        other = copy.deepcopy(cache)
        before = decoder(torch.tensor([[8]]), past_key_values=cache).logits
        first.add_(1)
        assert not torch.allclose(decoder(torch.tensor([[8]]), past_key_values=other).logits, before, atol=1e-9)


def test_training_keeps_nothing(counted, decoder):
    decoder.train()
    decoder(torch.tensor([[5, 6, 7]])).logits.sum().backward()
    shared = next(one for one in decoder.modules() if isinstance(one, HeadReparametrization))
    assert shared.kept._kept is None
    assert not counted


def test_what_is_kept():
    kept, calls = Kept(), []
    weight = torch.nn.Parameter(torch.ones(2))

    def compute():
        calls.append(0)
        return 2 * weight

    with torch.no_grad():
        assert kept.get([weight], "a", compute) is kept.get([weight], "a", compute)
        kept.get([weight], "b", compute)
        weight.mul_(3)
        assert torch.equal(kept.get([weight], "b", compute), torch.full((2,), 6.0))
        assert len(calls) == 3
        for other in (copy.deepcopy(kept), pickle.loads(pickle.dumps(kept))):  # noqa: S301
            other.get([weight], "b", compute)
        assert len(calls) == 5
        kept.drop()
        kept.get([weight], "b", compute)
    kept.get([weight], "b", compute)
    assert len(calls) == 7


def test_functional_transforms_keep_nothing(decoder):
    decoder.set_attn_implementation("eager")
    ids = torch.tensor([[5, 6, 7]])
    values = {name: one.detach() for name, one in decoder.named_parameters()}
    stacked = {name: torch.stack([one, 2 * one]) if "unipetl" in name else one for name, one in values.items()}
    axes = {name: 0 if "unipetl" in name else None for name in values}

    def compute(values):
        return torch.func.functional_call(decoder, values, (ids,), {"use_cache": False}).logits

    with torch.no_grad():
        both = torch.vmap(compute, in_dims=(axes,))(stacked)
        assert torch.allclose(both[0], decoder(ids, use_cache=False).logits)
