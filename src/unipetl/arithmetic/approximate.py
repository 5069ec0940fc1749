r"""Merges that are approximations, each of which says its error.

Low-rank changes are matrices :math:`\Delta W = s U D`, so a merge is computed on the matrices themselves, place by
place, and brought back to a rank by its singular values; the relative error in the Frobenius norm is reported for
every place (Eckart and Young 1936: no matrix of that rank is nearer). Factors and parameters of the model are vectors
of their own and need no rank.

Sources: TIES, Yadav et al. 2023, https://arxiv.org/abs/2306.01708, section 3; DARE, Yu et al. 2024,
https://arxiv.org/abs/2311.03099, section 3.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from unipetl.arithmetic.finite import finite, finite_weights, require_finite
from unipetl.arithmetic.joining import apart, key_of, named, scaled
from unipetl.arithmetic.term import Part, Term, rebuilt
from unipetl.errors import CombinationError
from unipetl.forms import LowRank, Rescale

#: (what is merged, its name) -> the merge; the tensors have one shape.
_Merge = Callable[[Sequence[Tensor], str], Tensor]


def reduce_rank(one: Term, rank: int) -> Term:
    """Return the term with every low-rank change brought to ``rank``, as near as any matrix of that rank.

    Raises:
        CombinationError: the rank is not positive, or a value is not finite.
    """
    _refuse_rank(rank)
    finite(one)
    parts: list[Part] = []
    errors: dict[str, float] = {}
    for part in one.parts:
        if not isinstance(part.modification.form, LowRank):
            parts.append(part)
            continue
        whole = scaled(part, 1.0)
        places = {}
        for place, values in whole.places.items():
            up, down, error = _nearest(values["up"], values["down"], rank)
            places[place] = {"up": up, "down": down}
            errors[f"{place} {named(part)}"] = error
        form = part.modification.form.model_copy(update={"rank": rank})
        parts.append(Part(rebuilt(whole.modification, form=form), places))
    law = f"the nearest of rank {rank}"
    return finite(replace(one, parts=apart(parts), law=law, errors={**one.errors, **errors}, name=""))


def ties(
    terms: Sequence[Term], weights: Sequence[float] | None = None, *, density: float = 0.2, rank: int | None = None
) -> Term:
    """Merge by TIES: trim each change to its largest values, elect a sign for each, average what agrees with it.

    Args:
        terms: attachments of one method.
        weights: of each; None is 1.
        density: the share of values that each keeps (0.2 in the paper).
        rank: of the result; None is the sum of the ranks.

    Raises:
        CombinationError: the attachments have other places or modifications, or changes that are no matrices; or a
            weight or the result is not finite.
    """
    _refuse_density(density)
    chosen = _weights(terms, weights, 1.0)

    def merge(values: Sequence[Tensor], name: str) -> Tensor:
        trimmed = torch.stack([_trimmed(value, density) * weight for value, weight in zip(values, chosen, strict=True)])
        require_finite([(name, trimmed)])  # infinities of both signs would agree on nothing, and pass for zeros
        sign = torch.sign(trimmed.sum(0))
        agrees = (torch.sign(trimmed) == sign) & (sign != 0)
        share = torch.stack([agrees[place] * abs(weight) for place, weight in enumerate(chosen)]).sum(0)
        total = (trimmed * agrees).sum(0)
        return torch.where(share > 0, total / share.clamp(min=torch.finfo(total.dtype).tiny), torch.zeros_like(total))

    return _merged(terms, merge, rank, f"TIES of {len(terms)} attachments at density {density:g}")


def dare(
    terms: Sequence[Term],
    weights: Sequence[float] | None = None,
    *,
    density: float = 0.5,
    seed: int = 0,
    rank: int | None = None,
) -> Term:
    """Merge by DARE: drop values at random, enlarge the rest so that the mean stays, and add up.

    Args:
        terms: attachments of one method.
        weights: of each; None is 1 / number.
        density: the share of values that each keeps.
        seed: what is dropped depends on it and on the place's name alone.
        rank: of the result; None is the sum of the ranks.

    Raises:
        CombinationError: the attachments have other places or modifications, or changes that are no matrices; or a
            weight or the result is not finite.
    """
    _refuse_density(density)
    chosen = _weights(terms, weights, 1 / max(len(terms), 1))

    def merge(values: Sequence[Tensor], name: str) -> Tensor:
        result = torch.zeros_like(values[0])
        for place, (value, weight) in enumerate(zip(values, chosen, strict=True)):
            digest = hashlib.sha256(f"{seed}:{place}:{name}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
            kept = (torch.rand(value.shape, generator=generator) < density).to(value.device)
            result += value * kept * (weight / density)
        return result

    return _merged(terms, merge, rank, f"DARE of {len(terms)} attachments at density {density:g}")


def _merged(terms: Sequence[Term], merge: _Merge, rank: int | None, law: str) -> Term:
    for each in terms:
        finite(each)
    first = terms[0]
    parts: list[Part] = []
    errors: dict[str, float] = {}
    for place, one in enumerate(first.parts):
        same = [_same_part(term, one, place) for term in terms]
        if isinstance(one.modification.form, Rescale):
            factors = {
                site: {"factor": 1 + merge([part.places[site]["factor"] - 1 for part in same], site)}
                for site in one.places
            }
            parts.append(Part(one.modification, factors))
            continue
        if not isinstance(one.modification.form, LowRank):
            raise CombinationError(
                f"{named(one)}: hidden units and learned keys have no order that two attachments share, so their "
                "values cannot be compared one by one. TIES and DARE are for low-rank changes, factors and "
                "parameters of the model; average() is exact for the others."
            )
        wholes = [scaled(part, 1.0) for part in same]
        ranks = [part.places[site]["down"].shape[0] for part in wholes for site in list(part.places)[:1]]
        wanted = sum(ranks) if rank is None else rank
        _refuse_rank(wanted)
        found = {}
        for site in one.places:
            dense = merge([part.places[site]["up"] @ part.places[site]["down"] for part in wholes], site)
            require_finite([(f"{site} {named(one)}", dense)])  # which has no singular values else
            up, down, error = _nearest_to(dense, wanted)
            found[site] = {"up": up, "down": down}
            errors[f"{site} {named(one)}"] = error
        form = one.modification.form.model_copy(update={"rank": wanted})
        parts.append(Part(rebuilt(wholes[0].modification, form=form), found))
    own, originals = _own_merged(terms, merge)
    return finite(Term(apart(parts), first.groups, first.train_head, own, originals, law, errors))


def _same_part(term: Term, one: Part, place: int) -> Part:
    found = [part for part in term.parts if key_of(part) == key_of(one) and set(part.places) == set(one.places)]
    if len(found) != 1 or len(term.parts) <= place:
        raise CombinationError(f"{named(one)}: not every attachment has exactly one such change, at the same places.")
    return found[0]


def _own_merged(terms: Sequence[Term], merge: _Merge) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    own: dict[str, Tensor] = {}
    originals: dict[str, Tensor] = {}
    for name in terms[0].own:
        known = next((one.originals[name] for one in terms if name in one.originals), None)
        if known is None or any(name not in one.own for one in terms):
            raise CombinationError(
                f"{name!r}: a merge of a model's own parameters is one of their changes, for which every attachment "
                "must train it and its original value be known; take the terms from a model."
            )
        originals[name] = known
        own[name] = known + merge([one.own[name] - known for one in terms], name)
    return own, originals


def _trimmed(value: Tensor, density: float) -> Tensor:
    """Return the ``density`` share of values of largest size, zeros elsewhere."""
    count = max(round(density * value.numel()), 1)
    kept = value.abs().flatten().topk(count).indices
    result = torch.zeros_like(value).flatten()
    result[kept] = value.flatten()[kept]
    return result.view_as(value)


def _nearest(up: Tensor, down: Tensor, rank: int) -> tuple[Tensor, Tensor, float]:
    """Return factors of the matrix of ``rank`` nearest to ``up @ down``, without making that matrix."""
    dtype = torch.promote_types(up.dtype, torch.float32)
    left, upper = torch.linalg.qr(up.to(dtype))
    right, lower = torch.linalg.qr(down.to(dtype).T)
    u, values, v = torch.linalg.svd(upper @ lower.T, full_matrices=False)
    return _factored(left @ u, values, v @ right.T, rank, up.dtype)


def _nearest_to(dense: Tensor, rank: int) -> tuple[Tensor, Tensor, float]:
    u, values, v = torch.linalg.svd(dense.to(torch.promote_types(dense.dtype, torch.float32)), full_matrices=False)
    return _factored(u, values, v, rank, dense.dtype)


def _factored(u: Tensor, values: Tensor, v: Tensor, rank: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, float]:
    squares = values.double().square()  # in which those of any float32 are finite
    kept, total = values[:rank], squares.sum()
    roots = kept.sqrt()
    up, down = u[:, :rank] * roots, roots[:, None] * v[:rank]
    missing = rank - kept.numel()
    if missing > 0:
        up = torch.cat([up, up.new_zeros(up.shape[0], missing)], dim=1)
        down = torch.cat([down, down.new_zeros(missing, down.shape[1])])
    error = (squares[rank:].sum() / total).sqrt() if float(total) > 0 else total
    return up.to(dtype), down.to(dtype), float(error)


def _weights(terms: Sequence[Term], weights: Sequence[float] | None, otherwise: float) -> list[float]:
    chosen = finite_weights(len(terms), [otherwise] * len(terms) if weights is None else weights)
    if not all(chosen):
        raise CombinationError(
            f"expected one weight other than 0 for each of {len(terms)} attachments, found {chosen}."
        )
    return chosen


def _refuse_density(density: float) -> None:
    if not 0 < density <= 1:
        raise CombinationError(f"density: expected a share of the values, more than 0 and at most 1; found {density}.")


def _refuse_rank(rank: int) -> None:
    if rank < 1:
        raise CombinationError(f"rank: expected at least 1, found {rank}.")
