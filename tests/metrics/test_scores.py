"""ROUGE and BLEU against closed forms, and what their signatures say."""

from __future__ import annotations

import pytest

from unipetl.errors import MissingPackageError
from unipetl.metrics import rouge as rouge_module
from unipetl.metrics.bleu import bleu, romanian_bleu
from unipetl.metrics.packages import need
from unipetl.metrics.rouge import NAMES, rouge, rouge_scores, signature


def f1(precision, recall):
    return 100 * 2 * precision * recall / (precision + recall)


def test_rouge_counts_stems_pairs_and_subsequences():
    found = rouge(["cats sat"], ["the cat sat down"])
    assert found["rouge1"] == pytest.approx(f1(1, 2 / 4))
    assert found["rouge2"] == pytest.approx(f1(1, 1 / 3))
    assert found["rougeL"] == pytest.approx(f1(1, 2 / 4))
    assert found["rougeLsum"] == found["rougeL"], "they are the same for one sentence"


def test_rouge_lsum_takes_sentence_by_sentence():
    found = rouge(["The dog ran. The cat sat."], ["The cat sat. The dog ran."])
    assert found["rougeL"] == pytest.approx(50.0)
    assert found["rougeLsum"] == pytest.approx(100.0)


def test_rouge_is_the_mean_over_examples():
    predicted, gold = ["a b c", "x y"], ["a b c", "p q"]
    rows = rouge_scores(predicted, gold)
    assert [row["rouge1"] for row in rows] == pytest.approx([100.0, 0.0])
    assert rouge(predicted, gold) == pytest.approx(dict.fromkeys(NAMES, 50.0))


def test_rouge_of_nothing_written_is_zero():
    assert set(rouge([""], ["a b"]).values()) == {0.0}


def test_rouge_says_what_it_depends_on():
    assert signature().startswith("rouge-score:")
    assert "stemmer:porter" in signature()
    assert rouge_module.splitter()[1] in signature()


def test_bleu_is_the_geometric_mean_of_precisions():
    found = bleu(["a b c d e"], ["a b c d f"])
    assert found.score == pytest.approx(100 * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** (1 / 4))
    assert "tok:13a" in found.signature
    assert "smooth:exp" in found.signature


def test_romanian_bleu_does_not_see_diacritics_and_typography():
    predicted, gold = ["El a zis „da” şi apoi «nu»."], ['El a zis "da" și apoi "nu".']
    assert romanian_bleu(predicted, gold).score == pytest.approx(100.0)
    assert bleu(predicted, gold).score < 60
    assert romanian_bleu(predicted, gold).signature.endswith(
        "tok:none|smooth:none|version:" + _version() + "|prepared:romanian"
    )


def test_romanian_bleu_is_not_smoothed():
    predicted, gold = ["a b c x"], ["a b c d"]
    assert romanian_bleu(predicted, gold).score == 0.0
    assert bleu(predicted, gold).score > 0


def test_a_missing_package_is_named_with_its_command():
    with pytest.raises(MissingPackageError, match=r'there-is-none is needed for ROUGE.*pip install "unipetl\[paper\]"'):
        need("there_is_none", "there-is-none", "ROUGE")
    with pytest.raises(ImportError):
        need("there_is_none", "there-is-none", "ROUGE")


def _version():
    import sacrebleu

    return sacrebleu.__version__
