from __future__ import annotations

import pytest

from unipetl.errors import TaskError
from unipetl.tasks.labels import find_labels, read_labels
from unipetl.tasks.rows import Rows

NAMES = ("entailment", "neutral", "contradiction")


def rows(*values):
    return Rows("dev.jsonl", {"label": list(values)}, lambda number: f"line {number + 1}")


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (("neutral", " entailment "), [1, 0]),
        ((0, 2), [0, 2]),
        (("0", "2"), [0, 2]),
        ((0.0, 2.0), [0, 2]),
    ],
)
def test_labels_are_names_or_numbers(values, found):
    assert read_labels(rows(*values), "label", NAMES) == found


def test_where_names_are_numbers_a_number_is_a_name():
    assert read_labels(rows(5, "1", 3), "label", ("1", "3", "5")) == [2, 0, 1]
    assert read_labels(rows(True, False), "label", ("0", "1")) == [1, 0]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("netural", r"dev\.jsonl, line 2: the label 'netural' is none of 'entailment'.*Did you mean 'neutral'\?"),
        (3, "the label '3' is none of"),
        (-1, "A hidden test set has -1 for all"),
        (None, "line 2: a label should be a name or a whole number; found None"),
        (0.5, "found 0.5"),
        ("", "found ''"),
        (["a"], "found"),
        ("neutral\ud800", r"line 2: character 8 of 'label' is '\\ud800', half of a surrogate pair"),
    ],
)
def test_another_label_is_named_with_its_line(value, message):
    with pytest.raises(TaskError, match=message):
        read_labels(rows("neutral", value), "label", NAMES)


def test_labels_are_found_in_the_examples():
    assert find_labels(rows("b", "a", "b"), "label") == ("a", "b")
    assert find_labels(rows("10", 9, "9"), "label") == ("9", "10")
    assert find_labels(rows("2", "-10", "-9"), "label") == ("-10", "-9", "2")


@pytest.mark.parametrize("odd", ["--5", "-", "5-", "9" * 5_000])
def test_what_only_looks_like_a_number_is_a_name(odd):
    names = find_labels(rows(odd, "3"), "label")
    assert names == tuple(sorted([odd, "3"]))
    assert read_labels(rows("3", odd), "label", names) == [names.index("3"), names.index(odd)]


@pytest.mark.parametrize("values", [("a", "a"), tuple(map(str, range(1001)))])
def test_too_few_or_too_many_labels_are_refused(values):
    with pytest.raises(TaskError, match="from 2 to 1000 can be told apart"):
        find_labels(rows(*values), "label")
