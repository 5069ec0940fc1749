"""A task that takes a second: parity of random tokens, with a tiny BERT."""

from __future__ import annotations

from pathlib import Path

import datasets
import numpy as np
import torch
from transformers import BertConfig, BertForSequenceClassification

from unipetl.tasks import Prepared, Task

WORDS = {f"w{number}": number for number in range(3, 32)}


class Words:
    pad_token_id = 0

    def encode(self, text):
        return [WORDS[word] for word in text.split()]

    def decode(self, ids, **_):
        return " ".join(f"w{number}" for number in ids)

    def save_pretrained(self, folder):
        (Path(folder) / "words.txt").write_text("\n".join(WORDS))


class Tiny(Task):
    name, metric, greater_is_better, kind = "tiny", "accuracy", True, "classification"
    description = "whether a sum is odd"

    def prepare(self, *, model=None, limit=None, evaluation_limit=None, seed=0):
        torch.manual_seed(0)
        bert = BertForSequenceClassification(
            BertConfig(
                vocab_size=32, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
                max_position_embeddings=16, id2label={0: "even", 1: "odd"}, label2id={"even": 0, "odd": 1},
            )
        )  # fmt: skip
        return Prepared(
            model=bert,
            tokenizer=Words(),
            train=rows(limit or 16, 1),
            evaluation=rows(evaluation_limit or 8, 2),
            collator=collate,
            compute_metrics=lambda p: {"accuracy": float((p.predictions.argmax(-1) == p.label_ids).mean())},
            generation=None,
            describe_predictions=lambda p: [
                {"input": str(i), "gold": int(g), "predicted": int(f), "correct": bool(f == g)}
                for i, (f, g) in enumerate(zip(p.predictions.argmax(-1), p.label_ids, strict=True))
            ],
        )


def rows(count, seed):
    tokens = np.random.default_rng(seed).integers(3, 32, (count, 6))
    return datasets.Dataset.from_dict({"input_ids": tokens.tolist(), "labels": (tokens.sum(1) % 2).tolist()})


def collate(batch):
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(row["input_ids"]) for row in batch], batch_first=True)
    found = {"input_ids": ids, "attention_mask": (ids != 0).long()}
    if "labels" in batch[0]:
        found["labels"] = torch.tensor([row["labels"] for row in batch])
    return found


TINY = Tiny()
