"""ROUGE (Lin 2004) of summaries, by rouge-score: F1 of shared words, word pairs and longest common subsequences.

With stemming, and for ``rougeLsum`` the union of common subsequences over sentences (which is ``rougeL`` for summaries
of one sentence). Scores are in percent.

The scripts of the paper report the middle value of a bootstrap over examples, whose draws are not seeded; the plain
mean over examples that is computed here is what that value scatters around. [unipetl.metrics.significance][] has
seeded intervals.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

from unipetl.metrics.packages import need

NAMES = ("rouge1", "rouge2", "rougeL", "rougeLsum")

Splitter = Callable[[str], list[str]]


def rouge_scores(predicted: Sequence[str], gold: Sequence[str]) -> list[dict[str, float]]:
    """Return ROUGE-1, -2, -L and -Lsum in percent for every pair of a summary and its reference."""
    scorer = need("rouge_score.rouge_scorer", "rouge-score", "ROUGE").RougeScorer(NAMES, use_stemmer=True)
    split = splitter()[0]
    found = []
    for written, right in zip(predicted, gold, strict=True):
        scores = scorer.score("\n".join(split(right)), "\n".join(split(written)))
        found.append({name: 100 * float(scores[name].fmeasure) for name in NAMES})
    return found


def rouge(predicted: Sequence[str], gold: Sequence[str]) -> dict[str, float]:
    """Return the means of [rouge_scores][] over the pairs, of which there must be at least one."""
    rows = rouge_scores(predicted, gold)
    return {name: sum(row[name] for row in rows) / len(rows) for name in NAMES}


def signature() -> str:
    """Return what the scores depend on, in one line, as sacreBLEU does for BLEU."""
    from importlib.metadata import version

    return f"rouge-score:{version('rouge-score')}|stemmer:porter|aggregate:mean|sentences:{splitter()[1]}"


@cache
def splitter() -> tuple[Splitter, str]:
    """Return what splits a text into sentences, and its name.

    nltk's English Punkt model where its data is installed (``python -m nltk.downloader punkt_tab``), as in the scripts
    of the paper. Else Punkt's rules without that model's list of abbreviations, which needs no download and changes
    ``rougeLsum`` alone, and that only where a summary has several sentences.
    """
    punkt = need("nltk.tokenize.punkt", "nltk", "splitting summaries into sentences")
    try:
        trained: Splitter = punkt.PunktTokenizer("english").tokenize
    except LookupError:
        rules: Splitter = punkt.PunktSentenceTokenizer().tokenize
        return rules, "punkt-rules"
    return trained, "punkt-english"
