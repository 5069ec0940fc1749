"""Does a claim hold? The rule that turns scores over seeds into a verdict.

Two methods are compared by their differences, seed by seed: a seed fixes the order of the data for both, so that what
it brings to both cancels. The mean difference has a 95 % interval by Student's t with n - 1 degrees of freedom. With a
margin m (0 where a difference is claimed, more where equality is):

- the interval lies above -m: the claim **holds**;
- it lies below -m: it **does not hold**;
- -m is inside: **too close to call**.

A claim of several pairs is judged by the mean over its pairs within each seed, unless it is about every one of them:
then it holds if it holds for every pair, does not hold if one of its k pairs goes the other way with k p below 0.05
(Bonferroni's correction, as there are k chances for that), and else is too close to call.

Scores are multiples of one example's worth, so that all differences can be equal by chance. Student's t says nothing
then; p is that of a sign test, which with five seeds never reaches 0.05: too close to call.

Many claims are tested at once, and of twenty that mean nothing one interval is expected to miss zero. Therefore every
verdict comes with p (two-sided, for a difference of -m) and with p after Holm's correction over all verdicts of the
study; those that the correction leaves below 0.05 are marked as sure. Nothing is hidden by it, and nothing is upgraded.
The intervals are about other seeds on the same examples and the same split, not about other data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import mean
from typing import Any, Literal

from unipetl.metrics.packages import need
from unipetl.reproduction.claims import Claim, Pair

Verdict = Literal["holds", "does not hold", "too close to call", "not tested"]
Scores = Mapping[str, Mapping[int, float]]  # label -> seed -> score
LEVEL = 0.95


@dataclass(frozen=True)
class Difference:
    """A mean difference over seeds.

    Attributes:
        mean, low, high: the mean and its interval at [LEVEL][].
        p: two-sided, for a true difference of minus the margin.
        seeds: how many.
    """

    mean: float
    low: float
    high: float
    p: float
    seeds: int

    def verdict(self, margin: float = 0.0) -> Verdict:
        """Return what it says of a claim with this margin."""
        if self.p >= 1 - LEVEL:  # as the interval says, unless it has no width
            return "too close to call"
        return "holds" if self.mean > -margin else "does not hold"


@dataclass(frozen=True)
class Judged:
    """One claim on one task.

    Attributes:
        claim, task: which.
        verdict: by the rule.
        difference: of all its pairs, where the claim is judged by their mean; None otherwise.
        pairs: every pair and its difference.
        p: of the verdict; of a claim on every pair the largest, or k times the smallest of those that go the other way.
        p_holm: after Holm's correction.
        missing: methods that have fewer than two common seeds with their partner.
    """

    claim: Claim
    task: str
    verdict: Verdict
    difference: Difference | None
    pairs: tuple[tuple[Pair, Difference], ...]
    p: float | None
    p_holm: float | None = None
    missing: tuple[str, ...] = ()

    @property
    def sure(self) -> bool:
        """Whether the verdict survives the correction for many claims."""
        return self.verdict in ("holds", "does not hold") and self.p_holm is not None and self.p_holm < 1 - LEVEL

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready data."""
        pairs = [{"better": a, "worse": b, **asdict(difference)} for (a, b), difference in self.pairs]
        own = {"claim": self.claim.key, "task": self.task, "verdict": self.verdict, "sure": self.sure}
        rest = {"p": self.p, "p_holm": self.p_holm, "margin": self.claim.margin, "missing": list(self.missing)}
        return {**own, "difference": asdict(self.difference) if self.difference else None, "pairs": pairs, **rest}


def difference(values: Sequence[float], *, margin: float = 0.0) -> Difference:
    """Return the mean of paired differences (seeds,) with its interval and p.

    Raises:
        ValueError: there are fewer than two.
        MissingPackageError: scipy is not installed.
    """
    count = len(values)
    if count < 2:
        raise ValueError(f"an interval over seeds needs at least two; found {count}.")
    middle = mean(values)
    error = math.sqrt(sum((one - middle) ** 2 for one in values) / (count - 1) / count)
    student = need("scipy.stats", "scipy", "intervals over seeds").t(count - 1)
    wide = float(student.ppf((1 + LEVEL) / 2)) * error
    shifted = middle + margin
    if error > 0:
        p = 2 * float(student.sf(abs(shifted) / error))
    else:
        p = 1.0 if shifted == 0 else 2.0 * 0.5**count
    return Difference(middle, middle - wide, middle + wide, p, count)


def judge(claims: Sequence[Claim], task: str, scores: Scores) -> list[Judged]:
    """Return what the scores of one task say of each claim; the correction for many is [corrected][]'s."""
    return [_judge(claim, task, scores) for claim in claims]


def corrected(judged: Sequence[Judged]) -> list[Judged]:
    """Return the verdicts with Holm's correction over all of them that were tested."""
    places = sorted((one.p, place) for place, one in enumerate(judged) if one.p is not None)
    after: dict[int, float] = {}
    highest = 0.0
    for rank, (p, place) in enumerate(places):
        highest = max(highest, min(1.0, p * (len(places) - rank)))
        after[place] = highest
    return [replace(one, p_holm=after.get(place)) for place, one in enumerate(judged)]


def _judge(claim: Claim, task: str, scores: Scores) -> Judged:
    seeds = {pair: sorted(set(scores.get(pair[0], {})) & set(scores.get(pair[1], {}))) for pair in claim.pairs}
    missing = sorted({label for pair, common in seeds.items() if len(common) < 2 for label in pair})
    tested = [pair for pair in claim.pairs if len(seeds[pair]) > 1]
    pairs = tuple(
        (pair, difference([_minus(scores, pair, seed) for seed in seeds[pair]], margin=claim.margin)) for pair in tested
    )
    if missing:
        return Judged(claim, task, "not tested", None, pairs, None, missing=tuple(missing))
    if claim.rule == "every":
        verdict, p = _every([one for _, one in pairs], claim.margin)
        return Judged(claim, task, verdict, None, pairs, p)
    common = sorted(set.intersection(*(set(seeds[pair]) for pair in claim.pairs)))
    if len(common) < 2:
        return Judged(claim, task, "not tested", None, pairs, None)
    whole = difference(
        [mean(_minus(scores, pair, seed) for pair in claim.pairs) for seed in common], margin=claim.margin
    )
    return Judged(claim, task, whole.verdict(claim.margin), whole, pairs, whole.p)


def _every(found: Sequence[Difference], margin: float) -> tuple[Verdict, float]:
    verdicts = [one.verdict(margin) for one in found]
    against = [one.p for one, verdict in zip(found, verdicts, strict=True) if verdict == "does not hold"]
    if against:
        p = min(1.0, min(against) * len(found))
        return ("does not hold" if p < 1 - LEVEL else "too close to call"), p
    worst = max(one.p for one in found)
    return ("holds" if all(verdict == "holds" for verdict in verdicts) else "too close to call"), worst


def _minus(scores: Scores, pair: Pair, seed: int) -> float:
    return scores[pair[0]][seed] - scores[pair[1]][seed]
