r"""Sums, multiples and stacks of attachments that are exact in the function they compute.

Two laws are kept apart. The *sum* of attachments changes every h by the weighted sum of their changes, all of which
read the same h and x. The *stack* is what ``activate(model, [first, second])`` computes: the later one reads what the
earlier has left, prefixes share one softmax, factors multiply. For parallel changes that are added the two are the
same function.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from unipetl.arithmetic.finite import finite, finite_weights
from unipetl.arithmetic.joining import apart, joined, key_of, named, scaled
from unipetl.arithmetic.term import Part, Term
from unipetl.composition import Gate, Multiply
from unipetl.errors import CombinationError
from unipetl.insertion import Parallel
from unipetl.method import Trained


def weighted_sum(terms: Sequence[Term], weights: Sequence[float]) -> Term:
    r"""Return the attachment whose change at every place is :math:`\sum_i w_i \Delta_i`, exactly.

    Low-rank changes have their ranks side by side, bottlenecks their widths, multi-head parallel adapters their
    lengths; factors l become :math:`1 + \sum_i w_i (l_i - 1)`; parameters of the model itself
    :math:`\theta + \sum_i w_i (\theta_i - \theta)`. Changes that cannot be joined stay beside each other.

    Raises:
        CombinationError: there is no such change: of prefixes and prompts, or of parameters whose original values
            are not known (take the terms from models); or a weight or the result is not finite.
    """
    weights = finite_weights(len(terms), weights)
    parts = [scaled(part, weight) for one, weight in zip(terms, weights, strict=True) for part in one.parts]
    gated = [part for part in parts if isinstance(part.modification.composition, Gate)]
    if len(gated) > 1:
        raise CombinationError(
            f"{named(gated[0])}: two gated changes share one softmax and do not add up. concatenate() puts prefixes "
            "and prompts beside each other, which is the stack of both."
        )
    own, originals = _own_sum(terms, weights)
    shares = [
        f"{weight:g} times the change of {called}" for weight, called in zip(weights, _called(terms), strict=True)
    ]
    return finite(
        Term(
            parts=_gathered(parts, product=False),
            groups=_groups(terms),
            train_head=any(one.train_head for one in terms),
            own=own,
            originals=originals,
            law=f"the sum of {' and '.join(shares)}",
        )
    )


def average(terms: Sequence[Term]) -> Term:
    """Return the attachment whose change at every place is the mean of the changes; see [weighted_sum][]."""
    if not terms:
        raise CombinationError("an average needs at least one attachment.")
    return weighted_sum(terms, [1 / len(terms)] * len(terms))


def negate(one: Term) -> Term:
    """Return the attachment that changes every h by the opposite; see [weighted_sum][].

    The opposite of a factor l is 2 - l: it undoes the change in a sum. (What undoes it in a stack is 1 / l.)
    """
    return weighted_sum([one], [-1.0])


def concatenate(terms: Sequence[Term]) -> Term:
    """Return the attachment that computes what ``activate(model, [first, second, ...])`` does, exactly.

    Prefixes and prompts have their lengths one after the other, what is added in parallel is as in a sum, factors
    multiply.

    Raises:
        CombinationError: a later attachment reads what an earlier one has changed, through a function that is no
            sum; or two of them train the same parameters of the model.
    """
    finite_weights(len(terms), [1.0] * len(terms))
    for place, later in enumerate(terms):
        for earlier in terms[:place]:
            _refuse_readers(earlier, later)
            both = sorted(set(earlier.own) & set(later.own))
            if both:
                raise CombinationError(f"two of the attachments train {both[0]!r}; average() takes the mean of both.")
    own: dict[str, Tensor] = {}
    originals: dict[str, Tensor] = {}
    for one in terms:
        own |= one.own
        originals |= one.originals
    parts = [scaled(part, 1.0) for one in terms for part in one.parts]
    law = f"the stack, in order, of {' and '.join(_called(terms))}"
    return finite(
        Term(_gathered(parts, product=True), _groups(terms), any(one.train_head for one in terms), own, originals, law)
    )


def _called(terms: Sequence[Term]) -> list[str]:
    """Return what attachments are called in a law: by name, or by number where that was computed or is not known."""
    return [repr(one.name) if one.name else f"number {place + 1}" for place, one in enumerate(terms)]


def _refuse_readers(earlier: Term, later: Term) -> None:
    """Refuse a stack in which a change of ``later`` reads, or multiplies, what ``earlier`` has added to the same h."""
    for part in later.parts:
        one = part.modification
        if isinstance(one.insertion, Parallel):
            continue
        for before in earlier.parts:
            other = before.modification
            both_factors = isinstance(one.composition, Multiply) and isinstance(other.composition, Multiply)
            same = set(part.places) & set(before.places)
            if same and not both_factors:
                raise CombinationError(
                    f"{named(part)} reads what {named(before)} of an earlier attachment leaves, so their stack is no "
                    "change of one step. weighted_sum() lets both read the same h; activate() stacks them."
                )


def _gathered(parts: Sequence[Part], *, product: bool) -> tuple[Part, ...]:
    groups: dict[object, list[Part]] = {}
    for place, part in enumerate(parts):
        key = key_of(part)
        groups.setdefault(("alone", place) if key is None else key, []).append(part)
    return apart([joined(group, product=product) for group in groups.values()])


def _groups(terms: Sequence[Term]) -> tuple[Trained, ...]:
    return tuple(dict.fromkeys(group for one in terms for group in one.groups))


def _own_sum(terms: Sequence[Term], weights: Sequence[float]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return θ + Σ w (θ_i - θ) for every parameter of the model that some attachment trains, and θ where known."""
    own: dict[str, Tensor] = {}
    originals: dict[str, Tensor] = {}
    for name in dict.fromkeys(name for one in terms for name in one.own):
        known = next((one.originals[name] for one in terms if name in one.originals), None)
        having = [(one.own[name], weight) for one, weight in zip(terms, weights, strict=True) if name in one.own]
        rest = 1.0 - sum(weight for _, weight in having)
        if known is None and abs(rest) > 1e-12:
            raise CombinationError(
                f"{name!r} is a parameter of the model itself: its weights add up to {1 - rest:g}, so the rest is the "
                "original value, which a saved attachment does not hold. Take the terms from a model, or use weights "
                "that add up to 1."
            )
        start = torch.zeros_like(having[0][0]) if known is None else known
        if known is not None:
            originals[name] = known
        total = start
        for value, weight in having:
            total = total + (value - start) * weight
        own[name] = total
    return own, originals
