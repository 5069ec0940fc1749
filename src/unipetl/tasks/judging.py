"""How written texts are judged: named sets of metrics over texts and references."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from unipetl.metrics.bleu import bleu, romanian_bleu
from unipetl.metrics.rouge import rouge, rouge_scores, signature

Texts = Sequence[str]


@dataclass(frozen=True)
class Judge:
    """A way to judge texts.

    Args:
        metrics: their names, the first of which a task is judged by unless it says otherwise.
        score: predicted and right texts -> every metric in percent.
        each: the same -> what an example's row in ``predictions.jsonl`` holds beside the texts.
        signatures: metric -> what its value depends on, such as sacreBLEU's signature.
    """

    metrics: tuple[str, ...]
    score: Callable[[Texts, Texts], dict[str, float]]
    each: Callable[[Texts, Texts], list[dict[str, Any]]]
    signatures: Callable[[], dict[str, str]]


def exact_match(predicted: Texts, gold: Texts) -> dict[str, float]:
    """Return the share, in percent, of texts that are right letter by letter."""
    return {"exact_match": 100 * sum(a == b for a, b in zip(predicted, gold, strict=True)) / len(gold)}


def _translation(predicted: Texts, gold: Texts) -> dict[str, float]:
    return {"sacrebleu": bleu(predicted, gold).score}


def _romanian(predicted: Texts, gold: Texts) -> dict[str, float]:
    return {"romanian_bleu": romanian_bleu(predicted, gold).score, "sacrebleu": bleu(predicted, gold).score}


def _nothing(predicted: Texts, gold: Texts) -> list[dict[str, Any]]:
    del gold
    return [{} for _ in predicted]


def _translation_signatures() -> dict[str, str]:
    return {"sacrebleu": bleu(["a"], ["a"]).signature}


def _romanian_signatures() -> dict[str, str]:
    return {"romanian_bleu": romanian_bleu(["a"], ["a"]).signature, **_translation_signatures()}


SUMMARIES = Judge(("rouge2", "rouge1", "rougeL", "rougeLsum"), rouge, rouge_scores, lambda: {"rouge": signature()})
TRANSLATIONS = Judge(("sacrebleu",), _translation, _nothing, _translation_signatures)
ROMANIAN = Judge(("romanian_bleu", "sacrebleu"), _romanian, _nothing, _romanian_signatures)
EXACT = Judge(("exact_match",), exact_match, _nothing, dict)
