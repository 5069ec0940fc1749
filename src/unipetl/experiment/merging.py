"""Several runs or saved attachments as one, by the laws of [arithmetic][unipetl.arithmetic]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unipetl import arithmetic
from unipetl.arithmetic.finite import finite_weights
from unipetl.attaching import activate
from unipetl.errors import CombinationError, unknown
from unipetl.experiment.opening import open_attachments, source_of
from unipetl.files import refuse_taken
from unipetl.storage import save
from unipetl.tasks import Task

#: What a merge is called, and what it computes.
WAYS: dict[str, str] = {
    "sum": "the weighted sum of the changes (exact)",
    "average": "the mean of the changes (exact)",
    "stack": "what attachments stacked in this order compute (exact, where a single step computes that)",
    "ties": "TIES on the low-rank matrices",
    "dare": "DARE on the low-rank matrices",
    "svd": "the weighted sum, brought to a rank by singular values",
}

#: Options, and the ways that they are for.
_TAKEN_BY = {"weights": ("sum", "ties", "dare", "svd"), "rank": ("ties", "dare", "svd"), "density": ("ties", "dare")}


@dataclass(frozen=True)
class Merged:
    """What a merge has written.

    Attributes:
        path: the folder, as ``unipetl.save`` writes it.
        law: what function it is of the attachments'.
        errors: place -> relative error (Frobenius norm) of what is approximated there; empty if the law is exact.
        parameters: how many values it has.
        method: the method.
    """

    path: Path
    law: str
    errors: dict[str, float]
    parameters: int
    method: dict[str, Any]

    @property
    def exact(self) -> bool:
        """Whether it is exactly what its law says."""
        return not self.errors

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready data."""
        worst = max(self.errors.values(), default=0.0)
        return {
            "path": str(self.path), "law": self.law, "exact": self.exact, "largest_error": worst,
            "errors": self.errors, "parameters": self.parameters, "method": self.method,
        }  # fmt: skip


def merge(
    paths: Sequence[str | Path],
    out: str | Path,
    *,
    how: str = "sum",
    weights: Sequence[float] | None = None,
    rank: int | None = None,
    density: float | None = None,
    seed: int = 0,
    model: str | None = None,
    model_class: str | None = None,
    name: str = "merged",
    task: Task | None = None,
) -> Merged:
    """Merge runs or saved attachments of one base, and save the result.

    Args:
        paths: finished runs, or folders of ``unipetl.save``.
        out: the folder of the result; it must not exist, or be empty.
        how: one of [WAYS][unipetl.experiment.merging.WAYS].
        weights: one for each, for ``sum``, ``ties``, ``dare`` and ``svd``; None is 1 (for ``dare`` 1 / number).
        rank: of the result, for ``svd``, ``ties`` and ``dare``.
        density: the share of values kept, for ``ties`` and ``dare``; None is their papers' choice.
        seed: what DARE drops depends on it.
        model: the base, where the first path is no run.
        model_class: its class, where the config does not name it.
        name: the result's name.
        task: the runs' task, where it is not one of unipetl's.

    Raises:
        CombinationError: the law does not hold for these attachments, an option does not fit ``how``, or a weight or
            the result is not finite.
        MismatchError: they belong to different bases.
        StorageError: ``out`` is taken.
    """
    _refuse_options(how, len(paths), weights=weights, rank=rank, density=density)
    refuse_taken(Path(out), "an attachment")
    opened = open_attachments([source_of(path) for path in paths], model=model, model_class=model_class, task=task)
    terms = [
        replace(arithmetic.term(opened.model, one), name=str(path))
        for one, path in zip(opened.names, paths, strict=True)
    ]
    result = _merged(terms, how, weights, rank, density, seed)
    activate(opened.model, None)
    attachment = arithmetic.put(opened.model, result, name=name)
    folder = save(opened.model, out, name=name)
    return Merged(folder, result.law, dict(result.errors), attachment.plan.parameters, attachment.method.plain())


def _merged(
    terms: list[arithmetic.Term],
    how: str,
    weights: Sequence[float] | None,
    rank: int | None,
    density: float | None,
    seed: int,
) -> arithmetic.Term:
    kept = {} if density is None else {"density": density}
    if how == "average":
        return arithmetic.average(terms)
    if how == "stack":
        return arithmetic.concatenate(terms)
    if how == "ties":
        return arithmetic.ties(terms, weights, rank=rank, **kept)
    if how == "dare":
        return arithmetic.dare(terms, weights, rank=rank, seed=seed, **kept)
    total = arithmetic.weighted_sum(terms, [1.0] * len(terms) if weights is None else list(weights))
    if how == "sum":
        return total
    assert rank is not None
    return arithmetic.reduce_rank(total, rank)


def _refuse_options(how: str, count: int, **options: Any) -> None:
    if how not in WAYS:
        raise CombinationError(unknown("way to merge", how, WAYS))
    if count < 2:
        raise CombinationError("a merge needs at least two attachments.")
    for name, value in options.items():
        if value is not None and how not in _TAKEN_BY[name]:
            raise CombinationError(f"{name} has no meaning for {how!r}; it is for {', '.join(_TAKEN_BY[name])}.")
    weights = options["weights"]
    if weights is not None:
        finite_weights(count, weights)
    if how == "svd" and options["rank"] is None:
        raise CombinationError("'svd' brings the sum to a rank; say which (--rank).")
