"""How sure a score is: bootstrap intervals, and paired tests of two systems on the same examples.

Scores that are means over examples (accuracy, exact match, ROUGE) go through scipy; BLEU, which is one number for a
whole corpus, through sacreBLEU. Both resample examples: what they say is about other examples, not about other seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unipetl.errors import TaskError
from unipetl.metrics.bleu import scorer
from unipetl.metrics.packages import need
from unipetl.metrics.romanian import prepare

RESAMPLES = 10_000  # for means
BLEU_RESAMPLES = 1_000  # as sacreBLEU does
MEMORY = 5_000_000  # numbers that are drawn at a time


@dataclass(frozen=True)
class Interval:
    """A score, and the bounds that the level's share of resampled scores lies between."""

    score: float
    low: float
    high: float
    level: float


@dataclass(frozen=True)
class Paired:
    """Two systems on the same examples.

    Attributes:
        difference: the second's score minus the first's.
        low, high, level: the difference's bootstrap interval; None where the test gives none.
        p: the chance of a difference at least as large, either way, if the systems were the same.
    """

    difference: float
    low: float | None
    high: float | None
    level: float
    p: float


def mean_interval(scores: Sequence[float], *, level: float = 0.95, seed: int = 0) -> Interval:
    """Return the mean of ``scores`` (examples,) and its percentile bootstrap interval.

    Raises:
        TaskError: there are fewer than two scores.
    """
    values = _values(scores)
    low, high = _bootstrap(values, level, seed)
    return Interval(float(values.mean()), low, high, level)


def paired_means(first: Sequence[float], second: Sequence[float], *, level: float = 0.95, seed: int = 0) -> Paired:
    """Compare two systems by their scores on the same examples, in the same order.

    p is that of a permutation test: which of the two a score belongs to is exchanged at random, example by example.

    Raises:
        TaskError: there are fewer than two scores, or not as many of one as of the other.
    """
    stats = need("scipy.stats", "scipy", "paired tests")
    before, after = _values(first), _values(second)
    if len(before) != len(after):
        raise TaskError(f"a paired test needs scores of the same examples; found {len(before)} and {len(after)}.")
    differences = after - before
    if not differences.any():
        return Paired(0.0, 0.0, 0.0, level, 1.0)
    low, high = _bootstrap(differences, level, seed)
    test = stats.permutation_test(
        (differences,),
        lambda values, axis: np.mean(values, axis=axis),
        permutation_type="samples",  # of one sample: signs are exchanged
        n_resamples=RESAMPLES,
        vectorized=True,
        batch=_batch(len(differences)),
        rng=np.random.default_rng(seed),
    )
    return Paired(float(differences.mean()), low, high, level, float(test.pvalue))


def bleu_interval(predicted: Sequence[str], gold: Sequence[str], *, romanian: bool = False) -> Interval:
    """Return the BLEU of a corpus and sacreBLEU's 95 % bootstrap interval.

    The resampling is seeded by sacreBLEU, the same every time unless ``SACREBLEU_SEED`` says otherwise.

    Args:
        predicted: translations.
        gold: a reference for each.
        romanian: count as the paper does; see [unipetl.metrics.romanian][].

    Raises:
        TaskError: there are fewer than two lines, or not as many references.
    """
    only = _tested([predicted], gold, "bs", BLEU_RESAMPLES, romanian)[0]
    return Interval(float(only.score), float(only.mean - only.ci), float(only.mean + only.ci), 0.95)


def paired_bleu(first: Sequence[str], second: Sequence[str], gold: Sequence[str], *, romanian: bool = False) -> Paired:
    """Compare two systems' BLEU on the same examples by sacreBLEU's paired approximate randomisation.

    sacreBLEU counts the exchanges that differ by more than the systems do, so that two equal ones would be told apart
    with certainty; their p is 1 here.

    Raises:
        TaskError: there are fewer than two lines, or not as many of one as of the others.
    """
    before, after = _tested([first, second], gold, "ar", RESAMPLES, romanian)
    difference = float(after.score - before.score)
    return Paired(difference, None, None, 0.95, float(after.p_value) if difference else 1.0)


def _tested(systems: Sequence[Sequence[str]], gold: Sequence[str], kind: str, samples: int, romanian: bool) -> Any:
    """Return sacreBLEU's result for every system; the first is the one that the others are tested against."""
    counts = [len(lines) for lines in (*systems, gold)]
    if len(set(counts)) > 1 or counts[0] < 2:
        raise TaskError(f"expected translations and references of the same two or more examples; found {counts}.")
    tests = need("sacrebleu.significance", "sacrebleu", "intervals and tests of BLEU")
    ready = [[prepare(line) for line in lines] if romanian else list(lines) for lines in (*systems, gold)]
    named = [(str(number), lines) for number, lines in enumerate(ready[:-1])]
    metric = {"BLEU": scorer(romanian=romanian)}
    _, found = tests.PairedTest(named, metric, [ready[-1]], test_type=kind, n_samples=samples)()
    return found["BLEU"]


def _values(scores: Sequence[float]) -> np.ndarray[Any, Any]:
    values = np.asarray(scores, dtype=float)
    if values.ndim != 1 or len(values) < 2:
        raise TaskError(f"an interval needs at least two scores, one per example; found shape {values.shape}.")
    return values


def _bootstrap(values: np.ndarray[Any, Any], level: float, seed: int) -> tuple[float, float]:
    if (values == values[0]).all():  # scipy would warn of it
        return float(values[0]), float(values[0])
    found = need("scipy.stats", "scipy", "bootstrap intervals").bootstrap(
        (values,),
        np.mean,
        confidence_level=level,
        n_resamples=RESAMPLES,
        method="percentile",
        batch=_batch(len(values)),
        rng=np.random.default_rng(seed),
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def _batch(count: int) -> int:
    return max(1, MEMORY // count)
