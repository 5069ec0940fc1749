"""A task that needs no network: is the sum of the tokens even, and write the tokens backwards."""

from __future__ import annotations

import os
import time
from pathlib import Path

import datasets
import numpy as np
import torch

from experiment.tiny import classification_rows, copying_rows, tiny_bart, tiny_bert
from unipetl.tasks import Prepared, Task


class Numbers:
    """Texts are numbers with spaces."""

    pad_token_id = 0

    def encode(self, text):
        return [int(word) % 20 + 3 for word in text.split()]

    def decode(self, ids, skip_special_tokens=True):
        return " ".join(str(i - 3) for i in ids if i > 2)


def collate(rows):
    longest = max(len(row["input_ids"]) for row in rows)
    ids = [list(row["input_ids"]) + [0] * (longest - len(row["input_ids"])) for row in rows]
    batch = {"input_ids": torch.tensor(ids)}
    batch["attention_mask"] = (batch["input_ids"] != 0).long()
    if "labels" in rows[0]:
        batch["labels"] = torch.tensor([row["labels"] for row in rows])
    return batch


class Parity(Task):
    name = "parity"
    metric = "accuracy"
    greater_is_better = True
    kind = "classification"
    description = "even or odd"

    def prepare(self, *, model=None, limit=None, evaluation_limit=None, seed=0):
        train = datasets.Dataset.from_list(classification_rows(limit or 24).rows)
        evaluation = datasets.Dataset.from_list(classification_rows(evaluation_limit or 12, seed=1).rows)

        def describe(prediction):
            best = np.asarray(prediction.predictions).argmax(-1)
            return [
                {"input": str(i), "gold": int(gold), "predicted": int(found), "correct": bool(gold == found)}
                for i, (gold, found) in enumerate(zip(prediction.label_ids, best, strict=True))
            ]

        return Prepared(
            model=tiny_bert(seed=7),
            tokenizer=Numbers(),
            train=train,
            evaluation=evaluation,
            collator=collate,
            compute_metrics=lambda p: {"accuracy": 100 * float((p.predictions.argmax(-1) == p.label_ids).mean())},
            generation=None,
            describe_predictions=describe,
        )


class Backwards(Task):
    name = "backwards"
    metric = "right"
    greater_is_better = True
    kind = "seq2seq"
    description = "tokens in reverse"

    def prepare(self, *, model=None, limit=None, evaluation_limit=None, seed=0):
        train = datasets.Dataset.from_list(copying_rows(limit or 24).rows)
        evaluation = datasets.Dataset.from_list(copying_rows(evaluation_limit or 8, seed=1).rows)

        def right(prediction):
            found, gold = np.asarray(prediction.predictions), np.asarray(prediction.label_ids)
            return [bool(np.isin(gold[i], found[i]).all()) for i in range(len(gold))]

        return Prepared(
            model=tiny_bart(seed=7),
            tokenizer=Numbers(),
            train=train,
            evaluation=evaluation,
            collator=collate,
            compute_metrics=lambda p: {"right": 100 * float(np.mean(right(p)))},
            generation={"num_beams": 2, "max_length": 9, "do_sample": False},
            describe_predictions=lambda p: [{"input": str(i), "correct": one} for i, one in enumerate(right(p))],
        )


class Slow(Parity):
    """Waits while a file exists, so that a test can interrupt."""

    name = "slow"

    def prepare(self, **settings):
        while os.path.exists(os.environ.get("TOY_TASK_WAITS_FOR", "")):  # noqa: PTH110
            time.sleep(0.05)
        return super().prepare(**settings)


def with_the_tests():
    """The PYTHONPATH of a process that finds this module, and unipetl where this process finds it."""
    return os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]))


parity, backwards, slow = Parity(), Backwards(), Slow()
