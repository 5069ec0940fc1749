"""Law: initial values depend on the seed and the place's name, and on nothing else."""

from __future__ import annotations

import pytest
import torch

import unipetl
from laws.support import EACH_LAYER, EXAMPLES, broken, explore, family_named, fresh
from unipetl.attaching import build as building
from unipetl.testing.compare import require, same

METHOD = "mam(length=2, rank=2, mlp=3) + adapter(rank=2, at=both)"


def values(model, method, **options):
    """The initial values of the changes."""
    tensors = unipetl.attach(model, method, train_head=False, **options).tensors()
    return {name: value.detach().clone() for name, value in tensors.items() if not name.startswith("model/")}


def law(make, method):
    """Law: the same seed gives the same values whatever torch's own generator says; another seed gives others."""
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = values(make(), method, seed=7)
    require(torch.equal(state, torch.get_rng_state()), "attaching draws from torch's own generator.")
    torch.manual_seed(2)
    for name, value in values(make(), method, seed=7).items():
        same(value, first[name], f"{name} with the same seed")
    other = values(make(), method, seed=8)
    drawn = [name for name, value in first.items() if value.numel() > 1 and value.std() > 0 and "bias" not in name]
    equal = [name for name in drawn if torch.equal(other[name], first[name])]
    require(not equal, f"equal values with another seed: {equal[:3]}.")


@EACH_LAYER
@EXAMPLES
def test_random_methods(family, examples):
    explore("seeds", family, examples, lambda model, method: law(lambda: fresh(family), method))


@EACH_LAYER
def test_places_differ_and_dtypes_do_not(family):
    double, single = values(fresh(family), METHOD), values(fresh(family, dtype=torch.float32), METHOD)
    for name, value in single.items():
        same(double[name].float(), value, f"{name} beside a float32 and a float64 base")
    downs = [value for name, value in single.items() if name.endswith("/down")]
    assert len({tuple(value.flatten().tolist()) for value in downs}) == len(downs)


@EACH_LAYER
def test_another_modification_moves_nothing(family):
    alone = values(fresh(family), "adapter(rank=2)")
    mixed = values(fresh(family), METHOD + " + prefix_tuning(length=3, mlp=None) + lora(rank=1)")
    assert set(alone) <= set(mixed)
    for name, value in alone.items():
        same(mixed[name], value, f"{name} in a mix")


def test_planted_values_from_torch_s_own_generator(monkeypatch):
    monkeypatch.setattr(building, "generator_for", lambda seed, name: torch.default_generator)
    with broken("torch's own generator"):
        law(lambda: fresh(family_named("bert")), METHOD)


def test_planted_seed_that_is_ignored(monkeypatch):
    real = building.generator_for
    monkeypatch.setattr(building, "generator_for", lambda seed, name: real(0, name))
    with broken("another seed"):
        law(lambda: fresh(family_named("bert")), METHOD)


def test_planted_seed_that_depends_on_the_count_of_calls(monkeypatch):
    real, calls = building.generator_for, []

    def planted(seed, name):
        calls.append(name)
        return real(len(calls), name)

    monkeypatch.setattr(building, "generator_for", planted)
    with broken("with the same seed"):
        law(lambda: fresh(family_named("bert")), METHOD)


def test_planted_generator_shared_by_places(monkeypatch):
    real = building.generator_for
    monkeypatch.setattr(building, "generator_for", lambda seed, name: real(seed, ""))
    with pytest.raises(AssertionError):
        test_places_differ_and_dtypes_do_not(family_named("bert"))
