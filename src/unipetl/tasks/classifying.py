"""Tasks that give a text, or a pair of texts, one of several labels, judged by accuracy in percent.

Encoders, encoder-decoders and decoders all work: transformers puts the classifier where the model's own convention has
it (the first token, or the last that is no padding).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import datasets
import numpy as np
from transformers import DataCollatorWithPadding, EvalPrediction

from unipetl.errors import TaskError
from unipetl.tasks.labels import find_labels, read_labels
from unipetl.tasks.options import ClassificationOptions
from unipetl.tasks.rows import Rows
from unipetl.tasks.sentiment import accuracy
from unipetl.tasks.sources import EVALUATION, TRAINING, Splits
from unipetl.tasks.task import Kind, Prepared, check_order, outputs
from unipetl.tasks.text_models import by_length, capacity, check_vocabulary, cut_note, load_classifier
from unipetl.tasks.text_task import TextTask

#: Between the two texts of a pair where both stand on one line.
BETWEEN = "\t"


class Classification(TextTask):
    """Text -> label.

    Attributes:
        text, text_pair, label: the columns' names; ``text_pair`` is None for single texts.
        labels: their names, in the order of their numbers; None for those that the training examples have.
        max_length: tokens that an input is cut to, if the model takes so many.
    """

    metric: str = "accuracy"
    greater_is_better: bool = True
    kind: Kind = "classification"
    text: str = "text"
    text_pair: str | None = None
    label: str = "label"
    labels: tuple[str, ...] | None = None
    max_length: int = 512

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        """See [TextTask][]."""
        super().__init__(options)
        self.reads_training = not (cast("ClassificationOptions", self.options).labels or self.labels)

    @classmethod
    def options_type(cls) -> type[ClassificationOptions]:
        """See [TextTask.options_type][]."""
        return ClassificationOptions

    def assemble(self, model: str, splits: Splits, seed: int) -> Prepared:
        """See [TextTask.assemble][]."""
        chosen = cast("ClassificationOptions", self.options)
        column = chosen.label or self.label
        labels = tuple(chosen.labels or self.labels or find_labels(splits.train, column))
        texts = {name: _read(rows, self._columns(), column, labels) for name, rows in splits.sets().items()}
        network, tokenizer = load_classifier(model, labels, seed, self.name)
        wanted = chosen.max_length or self.max_length
        length = min(wanted, capacity(network, tokenizer) or wanted)
        notes = list(splits.notes)
        if chosen.max_length is not None and length < wanted:
            notes.append(f"max_length is {wanted}, and the model reads {length} tokens: that is the limit.")
        ready: dict[str, datasets.Dataset] = {}
        for name, one in texts.items():
            inputs, cut = _encode(tokenizer, one.texts, length)
            notes += cut_note(cut, len(one.labels), f"{name} inputs", length)
            notes += check_vocabulary(network, tokenizer, inputs["input_ids"], self.name)
            order = range(len(one.labels)) if name == TRAINING else by_length(inputs["input_ids"])
            texts[name] = one.select(order)
            columns = {column: [values[number] for number in order] for column, values in inputs.items()}
            ready[name] = datasets.Dataset.from_dict({**columns, "labels": texts[name].labels})
        judged = texts[EVALUATION]

        def describe(prediction: EvalPrediction) -> list[dict[str, Any]]:
            check_order(np.array_equal(np.asarray(prediction.label_ids), np.array(judged.labels)), True, self.name)
            logits = outputs(prediction)
            chances = np.exp(logits - logits.max(axis=-1, keepdims=True))
            chances /= chances.sum(axis=-1, keepdims=True)
            return [
                {
                    "input": BETWEEN.join(text),
                    "gold": labels[label],
                    "predicted": labels[int(row.argmax())],
                    "correct": bool(row.argmax() == label),
                    "confidence": float(row.max()),
                }
                for text, label, row in zip(judged.texts, judged.labels, chances, strict=True)
            ]

        def encode(text: str) -> dict[str, list[int]]:
            parts = tuple(text.split(BETWEEN, len(self._columns()) - 1))
            if len(parts) != len(self._columns()):
                raise TaskError(f"task {self.name!r} reads pairs of texts: put a tab between the two; found {text!r}.")
            return {name: values[0] for name, values in _encode(tokenizer, [parts], length)[0].items()}

        return Prepared(
            model=network,
            tokenizer=tokenizer,
            **splits.fields(ready),
            collator=DataCollatorWithPadding(tokenizer),
            compute_metrics=accuracy,
            generation=None,
            describe_predictions=describe,
            encode=encode,
            notes=tuple(dict.fromkeys(notes)),
        )

    def _columns(self) -> tuple[str, ...]:
        chosen = cast("ClassificationOptions", self.options)
        pair = chosen.text_pair or self.text_pair
        return (chosen.text or self.text, *([pair] if pair else []))


@dataclass(frozen=True)
class _Texts:
    """The texts (one or two of each example) and the numbers of the labels of a split."""

    texts: list[tuple[str, ...]]
    labels: list[int]

    def select(self, numbers: Sequence[int]) -> _Texts:
        return _Texts([self.texts[number] for number in numbers], [self.labels[number] for number in numbers])


def _read(rows: Rows, columns: Sequence[str], label: str, labels: Sequence[str]) -> _Texts:
    texts = list(zip(*(rows.texts(name) for name in columns), strict=True))
    return _Texts(texts, read_labels(rows, label, labels))


def _encode(tokenizer: Any, texts: Sequence[tuple[str, ...]], length: int) -> tuple[dict[str, list[list[int]]], int]:
    """Return the model's inputs, none longer than ``length``, and how many were."""
    parts: list[list[str]] = [list(part) for part in zip(*texts, strict=True)]
    whole = tokenizer(*parts, return_attention_mask=False)
    long = [number for number, ids in enumerate(whole["input_ids"]) if len(ids) > length]
    inputs = {name: list(values) for name, values in whole.items()}
    if len(parts) == 1:  # which of a pair a token is from says nothing of a single text
        inputs.pop("token_type_ids", None)
    if long:
        some = [[part[number] for number in long] for part in parts]
        cut = tokenizer(*some, return_attention_mask=False, truncation=True, max_length=length)
        for name, values in inputs.items():
            for number, ids in zip(long, cut[name], strict=True):
                values[number] = ids
    return inputs, len(long)
