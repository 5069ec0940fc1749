"""Verdicts: against scipy's paired test, against Holm by hand, and at every edge of the rule."""

from __future__ import annotations

import pytest
from scipy import stats

from unipetl.reproduction.claims import CLAIMS, Claim
from unipetl.reproduction.small_methods import METHODS
from unipetl.reproduction.verdicts import Difference, corrected, difference, judge

A = {0: 10.0, 1: 12.0, 2: 11.0, 3: 13.0, 4: 12.5}
B = {0: 9.0, 1: 10.5, 2: 10.5, 3: 11.0, 4: 12.0}
C = {seed: value + (-1) ** seed * 3 for seed, value in A.items()}


def claim(*pairs, **more):
    return Claim("test", "a claim", "nowhere", "nothing", tuple(pairs), **more)


def verdict(one, **scores):
    return judge([one], "task", scores)[0].verdict


def test_the_interval_and_p_are_those_of_scipys_paired_test():
    found = difference([A[seed] - B[seed] for seed in A])
    test = stats.ttest_rel(list(A.values()), list(B.values()))
    interval = test.confidence_interval(0.95)
    assert (found.low, found.high, found.p) == pytest.approx((interval.low, interval.high, test.pvalue))


def test_a_margin_moves_the_null_hypothesis():
    values = [A[seed] - B[seed] for seed in A]
    assert difference(values, margin=1.0).p == pytest.approx(stats.ttest_1samp(values, -1.0).pvalue)


def test_the_three_verdicts():
    assert verdict(claim(("a", "b")), a=A, b=B) == "holds"
    assert verdict(claim(("b", "a")), a=A, b=B) == "does not hold"
    assert verdict(claim(("a", "c")), a=A, c=C) == "too close to call"


def test_equality_is_claimed_within_a_margin():
    near = {seed: value - 0.2 + 0.1 * (-1) ** seed for seed, value in A.items()}
    assert verdict(claim(("n", "a")), n=near, a=A) == "does not hold"
    assert verdict(claim(("n", "a"), margin=1.0), n=near, a=A) == "holds"
    far = {seed: value - 3 + 0.1 * (-1) ** seed for seed, value in A.items()}
    assert verdict(claim(("f", "a"), margin=1.0), f=far, a=A) == "does not hold"


def test_an_average_is_taken_within_each_seed():
    found = judge([claim(("a", "b"), ("c", "b"))], "task", {"a": A, "b": B, "c": C})[0]
    values = [((A[seed] - B[seed]) + (C[seed] - B[seed])) / 2 for seed in A]
    assert found.difference == difference(values)
    assert len(found.pairs) == 2


def test_a_claim_on_every_pair_needs_each():
    worse = {seed: value - 2 + 0.1 * (-1) ** seed for seed, value in B.items()}
    every = claim(("a", "b"), ("a", "w"), rule="every")
    assert verdict(every, a=A, b=B, w=worse) == "holds"
    assert verdict(claim(("a", "b"), ("a", "c"), rule="every"), a=A, b=B, c=C) == "too close to call"
    assert verdict(claim(("a", "b"), ("b", "a"), rule="every"), a=A, b=B) == "does not hold"


def test_a_pair_that_goes_the_other_way_too_weakly_for_so_many_pairs_leaves_its_p_undecided_too():
    less = {seed: A[seed] - loss for seed, loss in enumerate((0.36, 0.01, 0.56, 0.16, 0.51))}
    worse = {seed: value - 2 + 0.1 * (-1) ** seed for seed, value in B.items()}
    scores = {"a": A, "b": B, "less": less, "worse": worse}
    alone = judge([claim(("less", "a"))], "task", scores)[0]
    assert alone.verdict == "does not hold"
    assert 0.05 / 3 < alone.p < 0.05
    found = judge([claim(("less", "a"), ("a", "b"), ("a", "worse"), rule="every")], "task", scores)[0]
    assert found.verdict == "too close to call"
    assert found.p == pytest.approx(3 * alone.p)


def test_equal_differences_are_no_certainty():
    found = difference([1.0] * 5)
    assert found.p == 2 * 0.5**5
    assert found.verdict() == "too close to call"
    assert difference([0.0] * 5).p == 1.0


def test_only_common_seeds_count_and_fewer_than_two_are_no_test():
    assert judge([claim(("a", "b"))], "task", {"a": A, "b": {0: 1.0, 7: 2.0}})[0].verdict == "not tested"
    found = judge([claim(("a", "x"))], "task", {"a": A})[0]
    assert (found.verdict, found.missing, found.p) == ("not tested", ("a", "x"), None)
    some = judge([claim(("a", "b"))], "task", {"a": A, "b": {0: 9.0, 1: 10.5, 9: 0.0}})[0]
    assert some.difference is not None
    assert some.difference.seeds == 2


def test_one_seed_has_no_interval():
    with pytest.raises(ValueError, match="at least two; found 1"):
        difference([1.0])


def test_holms_correction_by_hand():
    judged = [j for scores in ({"a": A, "b": B}, {"a": A, "b": C}) for j in judge([claim(("a", "b"))], "t", scores)]
    untested = judge([claim(("a", "x"))], "t", {"a": A})
    first, second, third = corrected([*judged, *untested])
    p = sorted((first.p, second.p))
    assert first.p_holm == pytest.approx(2 * p[0])
    assert second.p_holm == pytest.approx(max(2 * p[0], p[1]))
    assert third.p_holm is None
    assert first.sure
    assert not second.sure
    assert not third.sure


def test_an_undecided_claim_is_never_sure():
    assert not corrected(judge([claim(("a", "c"))], "t", {"a": A, "c": C}))[0].sure


def test_every_claim_compares_methods_of_the_study():
    labels = {one.label for one in METHODS}
    assert {label for one in CLAIMS for pair in one.pairs for label in pair} <= labels
    assert len({one.key for one in CLAIMS}) == len(CLAIMS)


def test_a_difference_says_what_it_says():
    assert Difference(1.0, 0.5, 1.5, 0.01, 5).verdict() == "holds"
    assert Difference(-1.0, -1.5, -0.5, 0.01, 5).verdict(margin=0.2) == "does not hold"
