"""Where the change of one attachment joins when others are stacked on it.

A parallel change of a post-norm FFN joins behind the dropout of its result, beside the residual, as in the released
code. A change that is stacked on it and reads that result (a sequential adapter) reads it before the dropout. So that
it reads what the earlier attachment left, the earlier one joins before the dropout, too: the same function in
evaluation, and in training the dropout of the result takes it along.
"""

from __future__ import annotations

from collections.abc import Container, Sequence

from unipetl.architectures import Port
from unipetl.insertion import Parallel
from unipetl.planning.blueprint import Placement, Plan

Read = frozenset[Port]


def joint(one: Placement, read_later: Container[Port]) -> Port:
    """Return where a change joins the h it changes.

    Args:
        one: the change.
        read_later: where attachments that are stacked on its own read the h that they change, see [read_above][].
    """
    site = one.site
    if isinstance(one.modification.insertion, Parallel) and site.value not in read_later:
        return site.join
    return site.value


def read_above(stack: Sequence[Plan]) -> list[Read]:
    """Return for every plan of a stack where those above it read the h that they change."""
    above: list[Read] = []
    read: Read = frozenset()
    for plan in reversed(stack):
        above.append(read)
        if len(above) < len(stack):
            read |= _read(plan)
    return above[::-1]


def _read(plan: Plan) -> Read:
    apart = (one for one in plan.placements if one.site.join != one.site.value)
    return frozenset(one.site.value for one in apart if not isinstance(one.modification.insertion, Parallel))
