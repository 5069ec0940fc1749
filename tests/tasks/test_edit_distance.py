"""The edit distance against its textbook cases, its definition, and the axioms of a distance."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unipetl.tasks.edit_distance import edit_distance

words = st.text(alphabet="abˈ", max_size=6)


def by_definition(a: str, b: str) -> int:
    @cache
    def d(i: int, j: int) -> int:
        if i == 0 or j == 0:
            return i + j
        return min(d(i - 1, j) + 1, d(i, j - 1) + 1, d(i - 1, j - 1) + (a[i - 1] != b[j - 1]))

    return d(len(a), len(b))


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "", 3), ("", "", 0), ("flaw", "lawn", 2), ("ab", "ba", 2)],
)
def test_known_distances(a, b, distance):
    assert edit_distance(a, b) == distance


@given(words, words)
def test_is_its_recursive_definition(a, b):
    assert edit_distance(a, b) == by_definition(a, b)


@given(words, words, words)
def test_is_a_distance(a, b, c):
    assert edit_distance(a, b) == edit_distance(b, a)
    assert (edit_distance(a, b) == 0) == (a == b)
    assert edit_distance(a, c) <= edit_distance(a, b) + edit_distance(b, c)
