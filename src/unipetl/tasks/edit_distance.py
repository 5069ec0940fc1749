"""The edit distance between two sequences (Levenshtein 1966).

d(a, b) is the least number of insertions, deletions and substitutions that turn a into b:

    d(i, j) = min( d(i-1, j) + 1,  d(i, j-1) + 1,  d(i-1, j-1) + [a_i ≠ b_j] ),   d(i, 0) = i,  d(0, j) = j.
"""

from __future__ import annotations

from collections.abc import Sequence


def edit_distance(a: Sequence[object], b: Sequence[object]) -> int:
    """Return d(a, b), in O(len(a) · len(b)) time and one row of memory."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]
