"""Batches of a budget of tokens: none above it, every example once, the same for everyone who asks."""

from __future__ import annotations

from collections import Counter

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unipetl.errors import RunError
from unipetl.experiment.batches import TokenBudget, row_lengths

LENGTHS = st.lists(st.integers(1, 30), min_size=4, max_size=80)


def shares(lengths, budget, processes, epoch=0, seed=0):
    """Every process's batches of an epoch."""
    found = []
    for process in range(processes):
        batches = TokenBudget(lengths, budget, seed=seed, processes=processes, process=process)
        batches.set_epoch(epoch)
        found.append(list(batches))
        assert len(found[-1]) == len(batches)
    return found


def faults(shared, lengths, budget):
    """What is wrong with the batches of an epoch, by process."""
    wrong = []
    whole = [batch for batches in shared for batch in batches]
    if len({len(batches) for batches in shared}) > 1:
        wrong.append("processes differ in the number of batches")
    if any(not batch for batch in whole):
        wrong.append("an empty batch")
    if any(len(batch) * max(lengths[i] for i in batch) > budget for batch in whole if batch):
        wrong.append("above the budget")
    seen = Counter(i for batch in whole for i in batch)
    if set(seen) != set(range(len(lengths))):
        wrong.append("an example is left out")
    if max(seen.values()) > 1 and any(len(batch) > 1 for batch in whole):
        wrong.append("an example comes twice")
    return wrong


@given(LENGTHS, st.integers(30, 200), st.integers(1, 4), st.integers(0, 3))
def test_every_example_comes_once_within_the_budget(lengths, budget, processes, epoch):
    assert faults(shares(lengths, budget, processes, epoch), lengths, budget) == []


def test_where_all_batches_have_one_example_some_come_twice():
    shared = shares([30] * 5, 30, 3)
    assert [len(batches) for batches in shared] == [2, 2, 2]
    assert {i for batches in shared for batch in batches for i in batch} == set(range(5))


@pytest.mark.parametrize(
    ("shared", "fault"),
    [
        ([[[0, 1]], [[2], [3]]], "processes differ"),
        ([[[0, 1, 2], []], [[3], [1]]], "an empty batch"),
        ([[[0, 1, 2, 3]]], "above the budget"),
        ([[[0, 1], [2]]], "left out"),
        ([[[0, 1], [2, 3], [1]]], "twice"),
    ],
)
def test_planted_faults_are_reported(shared, fault):
    assert any(fault in found for found in faults(shared, [10] * 4, 30))


@given(LENGTHS, st.integers(30, 200))
def test_the_order_is_the_seeds_and_the_epochs_alone(lengths, budget):
    assert shares(lengths, budget, 1, epoch=1) == shares(lengths, budget, 1, epoch=1)
    assert len(shares(lengths, budget, 1, epoch=1)[0]) == len(shares(lengths, budget, 1, epoch=2)[0])


def test_epochs_and_seeds_differ():
    lengths = [1 + number % 9 for number in range(60)]
    first = shares(lengths, 40, 1)
    assert first != shares(lengths, 40, 1, epoch=1)
    assert first != shares(lengths, 40, 1, seed=1)
    together = [{frozenset(batch) for batch in shares(lengths, 40, 1, epoch=epoch)[0]} for epoch in range(2)]
    assert together[0] != together[1], "examples of one length meet others in the next epoch"


def test_there_is_little_padding_and_batches_are_full():
    lengths = [1 + (7 * number) % 50 for number in range(1000)]
    batches = shares(lengths, 400, 1)[0]
    padded = sum(len(batch) * max(lengths[i] for i in batch) for batch in batches)
    assert sum(lengths) / padded > 0.95
    assert padded / (400 * len(batches)) > 0.9


def test_processes_work_on_batches_of_like_length():
    lengths = [1 + (7 * number) % 50 for number in range(1000)]
    for step in zip(*shares(lengths, 400, 4), strict=True):
        longest = [max(lengths[i] for i in batch) for batch in step]
        assert max(longest) - min(longest) <= 20


def test_a_longer_example_than_the_budget_is_named():
    with pytest.raises(RunError, match="max_tokens_per_batch is 10, and the longest example alone has 11 tokens"):
        TokenBudget([3, 11], 10)
    with pytest.raises(RunError, match="2 examples cannot be shared by 3 processes"):
        TokenBudget([3, 3], 10, processes=3)


def test_what_a_row_counts():
    rows = [{"input_ids": [1] * 3, "labels": [2] * 5}, {"input_ids": [1] * 4, "labels": [2]}]
    for data in (rows, datasets.Dataset.from_list(rows)):
        assert row_lengths(data, encoder_decoder=True) == [5, 4]
        assert row_lengths(data, encoder_decoder=False) == [8, 5]
    labelled = datasets.Dataset.from_dict({"input_ids": [[1, 2], [1]], "labels": [0, 1]})
    assert row_lengths(labelled, encoder_decoder=False) == [2, 1]
    with pytest.raises(RunError, match="needs a data set of a known length with input_ids"):
        row_lengths(iter([]), encoder_decoder=False)
    with pytest.raises(RunError, match="with input_ids"):
        row_lengths([{"text": "a"}], encoder_decoder=False)
