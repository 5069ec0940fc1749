"""BLEU (Papineni et al. 2002) of translations, by sacreBLEU: plain, and as the paper computes it for Romanian.

A score without its signature says little; both kinds come with one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from unipetl.metrics.packages import need
from unipetl.metrics.romanian import prepare


@dataclass(frozen=True)
class Bleu:
    """A corpus's BLEU in percent, and what it depends on."""

    score: float
    signature: str


def bleu(predicted: Sequence[str], gold: Sequence[str]) -> Bleu:
    """Return plain sacreBLEU (13a tokens, mixed case, exponential smoothing)."""
    return _score(scorer(), predicted, gold)


def romanian_bleu(predicted: Sequence[str], gold: Sequence[str]) -> Bleu:
    """Return BLEU over [the Romanian pipeline][unipetl.metrics.romanian]'s tokens, unsmoothed, as in the paper."""
    found = _score(scorer(romanian=True), [prepare(line) for line in predicted], [prepare(line) for line in gold])
    return Bleu(found.score, f"{found.signature}|prepared:romanian")


def scorer(*, romanian: bool = False) -> Any:
    """Return sacreBLEU's metric, for plain text or for lines that went through the Romanian pipeline."""
    metrics = need("sacrebleu.metrics", "sacrebleu", "BLEU")
    if romanian:  # the lines are tokens already, which sacreBLEU would warn of
        return metrics.BLEU(tokenize="none", smooth_method="none", force=True)
    return metrics.BLEU()


def _score(metric: Any, predicted: Sequence[str], gold: Sequence[str]) -> Bleu:
    found = metric.corpus_score(list(predicted), [list(gold)])
    return Bleu(float(found.score), str(metric.get_signature()))
