"""What a task is: everything an experiment needs that is not the method."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self, TypedDict

import datasets
import numpy as np
from transformers import EvalPrediction, PreTrainedModel

from unipetl.errors import TaskError

#: What a model of the task gives: a label, a text of its own, or how probable a text is.
Kind = Literal["classification", "seq2seq", "language-modelling"]


@dataclass(frozen=True)
class Prepared:
    """A task made ready: a pretrained model, its data in numbers, and how to judge what comes out.

    Texts that are in no data set go the same way for every task: ``collator([row(text) for text in texts])`` is a batch
    for the model.

    Args:
        model: pretrained, on the CPU, nothing frozen.
        tokenizer: has ``encode(text)``, ``decode(ids)``, ``pad_token_id`` and ``save_pretrained(folder)``.
        train: columns ``input_ids`` and ``labels``, and what else the model reads. For a model without encoder that
            writes texts, they are the prompt and what should follow it.
        evaluation: the same columns, shortest input first so that sequential batches hold little padding. What the
            run is judged by at its end.
        collator: pads a list of rows to a batch of tensors; rows may lack ``labels``.
        compute_metrics: metrics of a whole evaluation; one of them is the task's ``metric``.
        generation: arguments of ``generate`` for a task whose model writes, None for classification.
        describe_predictions: one readable row per example of ``evaluation``, with ``input``, ``gold`` and, where the
            model answers, ``predicted`` and ``correct``; the predictions must be in that data set's order.
        development: what checkpoints are compared on while training; None for ``evaluation``.
        also: further data sets that are scored at the end, by the suffix of their metrics' names.
        encode: the row, without labels, of a text of one's own; None for ``tokenizer.encode`` as ``input_ids``.
        reduce_logits: of (logits, labels) what the metrics need, batch by batch; None for the logits themselves.
        signatures: metric -> what its value depends on, such as the library that computed it.
        notes: what the user should know of the data, such as how many inputs were cut.
    """

    model: PreTrainedModel
    tokenizer: Any
    train: datasets.Dataset
    evaluation: datasets.Dataset
    collator: Callable[[list[dict[str, Any]]], dict[str, Any]]
    compute_metrics: Callable[[EvalPrediction], dict[str, float]]
    generation: dict[str, Any] | None
    describe_predictions: Callable[[EvalPrediction], list[dict[str, Any]]]
    development: datasets.Dataset | None = None
    also: Mapping[str, datasets.Dataset] = field(default_factory=dict)
    encode: Callable[[str], dict[str, list[int]]] | None = None
    reduce_logits: Callable[[Any, Any], Any] | None = None
    signatures: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def row(self, text: str) -> dict[str, list[int]]:
        """Return a text of one's own as a row without labels."""
        return self.encode(text) if self.encode is not None else {"input_ids": list(self.tokenizer.encode(text))}


class Limits(TypedDict):
    """How many examples of each kind a task is prepared with; None is all."""

    limit: int | None
    evaluation_limit: int | None


class Task(ABC):
    """A task. Its name is also what its runs and tables are called by.

    Attributes:
        name: lower case, words joined by hyphens.
        metric: the key of ``compute_metrics`` that the task is judged by.
        greater_is_better: whether more of ``metric`` is better.
        kind: which head and which trainer it takes.
        description: one line for listings.
        selection: what ``load_best_model_at_end`` compares checkpoints by unless the recipe says otherwise: a key of
            ``compute_metrics``, or ``loss``; None for ``metric``.
        reads_training: whether the model or its answers depend on which training examples there are, as where labels
            are those of a file; such a task is prepared with all of them, also where nothing is trained.
    """

    name: str
    metric: str
    greater_is_better: bool
    kind: Kind
    description: str
    selection: str | None = None
    reads_training: bool = False

    def few(self, evaluation: int = 1) -> Limits:
        """Return the limits for [prepare][] under which there are few examples, and the model is still the same."""
        return {"limit": None if self.reads_training else 1, "evaluation_limit": evaluation}

    def configure(self, options: Mapping[str, Any]) -> Self:
        """Return this task with the options that a recipe gives it.

        Raises:
            TaskError: the task has no such option, or the value does not fit it.
        """
        if options:
            raise TaskError(f"task {self.name!r} has no options; found {', '.join(map(str, options))}.")
        return self

    @abstractmethod
    def prepare(
        self,
        *,
        model: str | None = None,
        limit: int | None = None,
        evaluation_limit: int | None = None,
        seed: int = 0,
    ) -> Prepared:
        """Make the task ready to run.

        Args:
            model: a local folder, or a name on the model hub where the task can use one; None for the task's own.
            limit: use at most so many training examples, always the same ones.
            evaluation_limit: use at most so many evaluation examples, always the same ones.
            seed: what a freshly initialised head is drawn from; nothing else depends on it.

        Raises:
            TaskError: the model does not fit the task, or a limit is not positive.
            DownloadError: something must be fetched and cannot be.
        """


def shuffle_key(text: str) -> str:
    """Return a key that sorts texts into an arbitrary order, the same on every machine and for every seed."""
    return hashlib.sha256(text.encode()).hexdigest()


def check_limit(limit: int | None, name: str) -> int | None:
    """Return ``limit`` if it is None or positive.

    Raises:
        TaskError: it is neither.
    """
    if limit is not None and limit < 1:
        raise TaskError(f"{name} must be at least 1, or left out to use everything; found {limit}.")
    return limit


def outputs(prediction: EvalPrediction) -> Any:
    """Return what the model predicted: the first array, where a model gives several."""
    predicted = prediction.predictions
    return np.asarray(predicted[0] if isinstance(predicted, tuple) else predicted)


def check_order(found: int | bool, wanted: int | bool, task: str) -> None:
    """Refuse predictions that do not belong, row by row, to the task's evaluation data.

    Raises:
        TaskError: ``found`` and ``wanted`` differ: the lengths, or whether the labels are the same.
    """
    if found != wanted:
        raise TaskError(
            f"task {task!r}: these predictions are not of its evaluation data in its order. Predict on "
            "`Prepared.evaluation` with a sequential sampler (grouping by length reorders evaluation too)."
        )
