"""Law: the order of a method's modifications means nothing, neither for initial values nor for the function."""

from __future__ import annotations

import random

import pytest

import unipetl
from laws.support import EACH_LAYER, EXAMPLES, broken, explore, family_named, fresh
from unipetl.attaching import build as building
from unipetl.testing import batch
from unipetl.testing.compare import close, outputs, require, same, scatter

MIXED = unipetl.parse(
    "mam(length=2, rank=2, mlp=3) + lora(rank=1, at=all) + parallel_adapter(rank=2, at=both) + ia3 + houlsby(rank=1)"
    " + ungated_prefix(length=2, mlp=None) + multi_head_parallel_adapter(rank=2)"
)


def law(model, method, twin):
    """Law: a permutation of the modifications gives equal values, and the same function."""
    permuted = list(method.modifications)
    random.Random(1).shuffle(permuted)
    if len(permuted) > 1 and tuple(permuted) == method.modifications:
        permuted.reverse()
    other = unipetl.Method(modifications=tuple(permuted), train=method.train)
    first, second = unipetl.attach(model, method), unipetl.attach(twin, other)
    ours, theirs = first.tensors(), second.tensors()
    require(set(ours) == set(theirs), f"other names in another order: {sorted(set(ours) ^ set(theirs))[:3]}")
    for name, tensor in ours.items():
        same(theirs[name], tensor, f"initial values of {name}")
    scatter(first)
    scatter(second)
    close(outputs(twin, batch(twin)), outputs(model, batch(model)), "the function in another order", 1e-12)


@EACH_LAYER
@EXAMPLES
def test_random_methods(family, examples):
    explore("order", family, examples, lambda model, method: law(model, method, fresh(family)))


@EACH_LAYER
def test_a_large_mix(family):
    law(fresh(family), MIXED, fresh(family))


@pytest.mark.parametrize("seed", range(5))
def test_several_permutations(seed):
    shuffled = list(MIXED.modifications)
    random.Random(seed).shuffle(shuffled)
    family = family_named("t5_gated")
    law(fresh(family), unipetl.Method(modifications=tuple(shuffled)), fresh(family))


def test_planted_values_that_depend_on_the_order(monkeypatch):
    real, calls = building.generator_for, []

    def planted(seed, name):
        calls.append(name)
        return real(len(calls), "")

    monkeypatch.setattr(building, "generator_for", planted)
    with broken("initial values"):
        law(fresh(family_named("bert")), MIXED, fresh(family_named("bert")))


def test_planted_change_that_reads_its_forerunner(monkeypatch):
    def planted(self, h, own_input, **_):
        for item in self.items:
            x = h if item.tape is None else item.tape.take()
            change = item.change.delta(own_input if item.own_input else x)
            h = h * change if change.dim() == 1 else item.change.add_to(h, change)
        return h

    monkeypatch.setattr("unipetl.attaching.ports.Step._change", planted)
    monkeypatch.setattr("unipetl.attaching.install.sorted", _by_arrival, raising=False)
    monkeypatch.setattr("unipetl.planning.make.place", _unsorted(), raising=True)
    method = unipetl.parse("adapter(rank=2) + adapter(rank=1) + pfeiffer(rank=2)")
    with broken("in another order"):
        law(fresh(family_named("bert")), method, fresh(family_named("bert")))


def _by_arrival(values, key=None):
    return list(values)


def _unsorted():
    from unipetl.planning import make

    real = make.place

    def planted(method, model, sites):
        placements, groups = real(method, model, sites)
        wanted = {str(one.plain()): number for number, one in enumerate(method.modifications)}
        return tuple(sorted(placements, key=lambda one: wanted[str(one.modification.plain())])), groups

    return planted
