"""Attachments as values: sums, averages, opposites and stacks that are exact, and merges that say their error.

from unipetl import arithmetic

a, b = arithmetic.term("runs/a/adapter"), arithmetic.term("runs/b/adapter")
arithmetic.put(model, arithmetic.average([a, b]), name="both")
"""

from unipetl.arithmetic.approximate import dare, reduce_rank, ties
from unipetl.arithmetic.exact import average, concatenate, negate, weighted_sum
from unipetl.arithmetic.term import Part, Term, put, term

__all__ = [
    "Part",
    "Term",
    "average",
    "concatenate",
    "dare",
    "negate",
    "put",
    "reduce_rank",
    "term",
    "ties",
    "weighted_sum",
]
