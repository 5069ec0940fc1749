"""What a low-rank change cannot use of its rank."""

from __future__ import annotations

from collections.abc import Iterable

from unipetl.forms import Experts, Features, LowRank
from unipetl.planning.blueprint import Placement


def beyond_full_rank(placements: Iterable[Placement]) -> tuple[str, ...]:
    """Return a sentence for every rank that is larger than that of a whole matrix at its place.

    ``W_up W_down`` (out, in) has at most the rank min(in, out), so a larger r only costs more. It is allowed, as in
    PEFT: training differs, and folders of other libraries may have it.
    """
    largest: dict[tuple[str, int], int] = {}
    for one in placements:
        form, shape = one.modification.form, one.shape.each if isinstance(one.shape, Experts) else one.shape
        if isinstance(form, LowRank) and isinstance(shape, Features):
            full = min(shape.in_features, shape.out_features)
            where = (one.modification.representation.name, form.rank)
            largest[where] = max(full, largest.get(where, 0))
    return tuple(
        f"The rank {rank:,} at {name!r} is more than a whole matrix has there ({full:,}): it adds parameters, and no "
        "change that a smaller rank has not."
        for (name, rank), full in largest.items()
        if rank > full
    )
