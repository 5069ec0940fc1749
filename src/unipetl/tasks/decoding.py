"""Ids back to texts: what was written and what was right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import EvalPrediction

from unipetl.errors import TaskError
from unipetl.tasks.task import outputs


def decoded(tokenizer: Any, ids: Sequence[Sequence[int]]) -> list[str]:
    """Return the texts of rows of ids, without special tokens; negative ids count for nothing."""
    rows = [[int(number) for number in row if number >= 0] for row in ids]
    return [text.strip() for text in tokenizer.batch_decode(rows, skip_special_tokens=True)]


def written_and_right(prediction: EvalPrediction, tokenizer: Any, task: str) -> tuple[list[str], list[str]]:
    """Return predicted and right texts, from generated ids and labels, both (examples, length).

    Raises:
        TaskError: the predictions are no ids.
    """
    ids = outputs(prediction)
    if ids.ndim != 2:
        raise TaskError(
            f"task {task!r} judges generated ids of shape (examples, length) and was given {ids.shape}: evaluate with "
            "predict_with_generate=True."
        )
    return decoded(tokenizer, ids.tolist()), decoded(tokenizer, np.asarray(prediction.label_ids).tolist())
