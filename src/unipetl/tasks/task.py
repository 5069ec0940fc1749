"""What a task is: everything an experiment needs that is not the method."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import datasets
import numpy as np
from transformers import EvalPrediction, PreTrainedModel

from unipetl.errors import TaskError

Kind = Literal["classification", "seq2seq"]


@dataclass(frozen=True)
class Prepared:
    """A task made ready: a pretrained model, its data in numbers, and how to judge what comes out.

    Texts that are in no data set go the same way for every task:
    ``collator([{"input_ids": tokenizer.encode(text)} for text in texts])`` is a batch for the model.

    Args:
        model: pretrained, on the CPU, nothing frozen.
        tokenizer: has ``encode(text)``, ``decode(ids)``, ``pad_token_id`` and ``save_pretrained(folder)``.
        train: columns ``input_ids`` and ``labels`` alone.
        evaluation: the same columns, shortest input first so that sequential batches hold little padding.
        collator: pads a list of rows to a batch of tensors; rows may lack ``labels``.
        compute_metrics: metrics of a whole evaluation; one of them is the task's ``metric``.
        generation: arguments of ``generate`` for a seq2seq task, None for classification.
        describe_predictions: one readable row per example of ``evaluation``, with ``input``, ``gold``, ``predicted``
            and ``correct``; the predictions must be in that data set's order.
    """

    model: PreTrainedModel
    tokenizer: Any
    train: datasets.Dataset
    evaluation: datasets.Dataset
    collator: Callable[[list[dict[str, Any]]], dict[str, Any]]
    compute_metrics: Callable[[EvalPrediction], dict[str, float]]
    generation: dict[str, Any] | None
    describe_predictions: Callable[[EvalPrediction], list[dict[str, Any]]]


class Task(ABC):
    """A task. Its name is also what its runs and tables are called by.

    Attributes:
        name: lower case, one word.
        metric: the key of ``compute_metrics`` that the task is judged by.
        greater_is_better: whether more of ``metric`` is better.
        kind: which head and which trainer it takes.
        description: one line for listings.
    """

    name: ClassVar[str]
    metric: ClassVar[str]
    greater_is_better: ClassVar[bool]
    kind: ClassVar[Kind]
    description: ClassVar[str]

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
