"""Weights and results of arithmetic are finite numbers, or are refused; what was read goes through unchanged."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction

import numpy
import pytest
import torch

import unipetl
from unipetl import arithmetic
from unipetl.errors import CombinationError
from unipetl.testing import build
from unipetl.testing.compare import scatter

LAWS = (arithmetic.weighted_sum, arithmetic.ties, arithmetic.dare)


@pytest.fixture(scope="module")
def terms():
    model = build("bert")
    for number, name in enumerate("ab"):
        scatter(unipetl.attach(model, "lora(rank=2) + ia3", name=name, train_head=False), seed=number)
    return [arithmetic.term(model, name) for name in "ab"]


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("weight", [math.nan, math.inf, -math.inf, "x", "1", None, True, 1j, 10**400, [1.0]])
def test_a_weight_that_is_no_finite_number_is_refused(law, weight, terms):
    with pytest.raises(CombinationError, match="weight 2: expected a finite number"):
        law(terms, [1, weight])


@pytest.mark.parametrize("law", LAWS)
def test_every_kind_of_real_number_is_a_weight(law, terms):
    wanted = law(terms, [1.0, 0.5]).tensors()
    for weights in ([1, Fraction(1, 2)], numpy.array([1, 0.5], dtype=numpy.float32)):
        for name, value in law(terms, weights).tensors().items():
            assert torch.equal(value, wanted[name])


@pytest.mark.parametrize("law", LAWS)
def test_a_result_that_overflows_is_refused(law, terms):
    with pytest.raises(CombinationError, match="NaN or infinite values"):
        law([terms[0], terms[0]], [1e300, 1e300] if law is not arithmetic.ties else [1e39, -1e39])


def test_values_that_were_not_finite_before_are_refused(terms):
    part = terms[0].parts[0]
    place, values = next(iter(part.places.items()))
    broken = {**part.places, place: {name: torch.full_like(value, math.nan) for name, value in values.items()}}
    bad = dataclasses.replace(terms[0], parts=(dataclasses.replace(part, places=broken), *terms[0].parts[1:]))
    for call in (
        lambda: arithmetic.average([terms[1], bad]),
        lambda: arithmetic.concatenate([bad]),
        lambda: arithmetic.reduce_rank(bad, 1),
        lambda: arithmetic.ties([terms[1], bad]),
    ):
        with pytest.raises(CombinationError, match="NaN or infinite values"):
            call()


def test_the_error_of_large_values_is_a_number(terms):
    large = arithmetic.weighted_sum(terms, [1e25, 1e25])  # whose squares float32 does not hold
    found, wanted = (arithmetic.reduce_rank(one, 1).errors for one in (large, arithmetic.weighted_sum(terms, [1, 1])))
    assert found == pytest.approx(wanted, rel=1e-4)


def test_a_law_names_what_it_is_of(terms, tmp_path):
    total = arithmetic.weighted_sum(terms, [2, -1])
    assert total.law == "the sum of 2 times the change of 'a' and -1 times the change of 'b'"
    assert arithmetic.concatenate([terms[1]]).law == "the stack, in order, of 'b'"
    again = arithmetic.average([total, terms[1]])
    assert again.law == "the sum of 0.5 times the change of number 1 and 0.5 times the change of 'b'"
