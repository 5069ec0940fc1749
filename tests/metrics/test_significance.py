"""Intervals and paired tests against closed forms."""

from __future__ import annotations

import math

import pytest

from unipetl.errors import TaskError
from unipetl.metrics.significance import bleu_interval, mean_interval, paired_bleu, paired_means

GOLD = [
    "ana are mere verzi si coapte",
    "el merge la piata maine",
    "totul este bine azi aici",
    "un om vechi si bun",
] * 5
WORSE = [
    "ana are pere verzi si coapte",
    "el merge la piata maine",
    "totul este rau azi aici",
    "un om vechi si bun",
] * 5


def test_an_interval_is_about_as_wide_as_the_normal_one():
    scores = [100.0] * 120 + [0.0] * 280
    found = mean_interval(scores)
    half = 1.96 * 100 * math.sqrt(0.3 * 0.7 / 400)
    assert found.score == pytest.approx(30.0)
    assert found.low == pytest.approx(30 - half, abs=0.6)
    assert found.high == pytest.approx(30 + half, abs=0.6)
    assert mean_interval(scores) == found, "the same every time"
    assert mean_interval(scores, level=0.5).low > found.low


def test_scores_that_are_all_the_same_leave_no_doubt():
    found = mean_interval([7.0] * 9)
    assert (found.low, found.score, found.high) == (7.0, 7.0, 7.0)


def test_p_is_exact_for_few_examples():
    assert paired_means([0.0] * 5, [1.0, 2.0, 3.0, 4.0, 5.0]).p == pytest.approx(2 / 2**5)


def test_a_paired_test_is_about_the_second_minus_the_first():
    before, after = [1.0, 0.0, 0.0, 1.0, 0.0, 1.0], [1.0, 1.0, 0.0, 1.0, 1.0, 1.0]
    forth, back = paired_means(before, after), paired_means(after, before)
    assert forth.difference == pytest.approx(2 / 6)
    assert back.difference == -forth.difference
    assert back.p == pytest.approx(forth.p, abs=0.02)
    assert forth.low <= forth.difference <= forth.high


def test_two_that_are_the_same_do_not_differ():
    found = paired_means([1.0, 0.0, 1.0], [1.0, 0.0, 1.0])
    assert (found.difference, found.p) == (0.0, 1.0)


def test_an_interval_of_bleu_holds_its_score():
    found = bleu_interval(WORSE, GOLD)
    assert found.low < found.score < found.high
    assert bleu_interval(WORSE, GOLD) == found
    same = bleu_interval(GOLD, GOLD, romanian=True)
    assert (same.low, same.score, same.high) == pytest.approx((100, 100, 100))


def test_bleu_of_two_systems():
    better = paired_bleu(WORSE, GOLD, GOLD)
    assert better.difference > 10
    assert better.p < 0.01
    assert paired_bleu(WORSE, WORSE, GOLD).p == 1.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean_interval([1.0]), "at least two"),
        (lambda: paired_means([1.0, 2.0], [1.0, 2.0, 3.0]), "found 2 and 3"),
        (lambda: bleu_interval(["a"], ["a"]), "two or more"),
        (lambda: paired_bleu(GOLD, GOLD[:3], GOLD), "the same two or more examples"),
    ],
)
def test_what_cannot_be_compared_is_refused(call, message):
    with pytest.raises(TaskError, match=message):
        call()
