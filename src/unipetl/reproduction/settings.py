"""How the paper trained on each of its tasks: appendix A and table 7, and the released code where these are silent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: transformers' ``polynomial`` schedule as the released code calls it: a straight line to 1e-7.
LINE = {"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"power": 1.0, "lr_end": 1e-7}}
COMMON: dict[str, Any] = {**LINE, "fp16": True, "load_best_model_at_end": True}


@dataclass(frozen=True)
class TaskSettings:
    """A task of the paper.

    Args:
        task: unipetl's name.
        model: the paper's checkpoint, and ``size_model`` the one whose size its shares of parameters are of.
        metric: what its main number is.
        training: training arguments.
        options: options of the task.
        full: training arguments of full fine-tuning that differ.
        seeds: of rows that are printed with a standard deviation; the first of them is that of the others.
        train_head: whether the classification head is trained beside a method.
        notes: ambiguities of all of its rows.
        source, target: the longest input and output, in tokens; 0 where nothing is written.
        examples: training examples.
    """

    task: str
    model: str
    size_model: str
    metric: str
    training: Mapping[str, Any]
    seeds: tuple[int, ...]
    source: int
    target: int
    examples: int
    options: Mapping[str, Any] = field(default_factory=dict)
    full: Mapping[str, Any] = field(default_factory=dict)
    train_head: bool = True
    notes: tuple[str, ...] = ()


_SUMMARY = TaskSettings(
    task="xsum",
    model="facebook/bart-large",
    size_model="facebook/bart-large",
    metric="rouge2",
    training={
        **COMMON,
        "learning_rate": 5e-5,
        "max_steps": 100_000,
        "per_device_train_batch_size": 16,
        "gradient_accumulation_steps": 4,
        "label_smoothing_factor": 0.1,
        "max_grad_norm": 0.1,
        "weight_decay": 0.01,
        "warmup_steps": 0,
        "eval_strategy": "steps",
        "eval_steps": 3_000,
        "save_steps": 3_000,
    },
    options={"dev_cap": 1_600},
    seeds=(42, 15217, 65537),
    notes=("dev-cap", "xsum-sizes"),
    source=512,
    target=128,
    examples=204_045,
)
_TRANSLATION = TaskSettings(
    task="wmt16-en-ro",
    model="facebook/mbart-large-cc25",
    size_model="facebook/bart-large",
    metric="romanian_bleu",
    training={
        **COMMON,
        "learning_rate": 5e-5,
        "max_steps": 50_000,
        "max_tokens_per_batch": 4_096,
        "gradient_accumulation_steps": 4,
        "label_smoothing_factor": 0.1,
        "max_grad_norm": 1.0,
        "weight_decay": 0.01,
        "warmup_steps": 0,
        "adam_beta2": 0.98,
        "adam_epsilon": 1e-6,
        "eval_strategy": "steps",
        "eval_steps": 5_000,
        "save_steps": 5_000,
    },
    options={"dev_cap": 1_600},
    seeds=(42, 15217, 65537),
    notes=("bleu", "tokens", "dev-cap"),
    source=150,
    target=150,
    examples=610_320,
)


def _glue(task: str, examples: int) -> TaskSettings:
    return TaskSettings(
        task=task,
        model="FacebookAI/roberta-base",
        size_model="FacebookAI/roberta-base",
        metric="accuracy",
        training={
            **COMMON,
            "learning_rate": 1e-4,
            "num_train_epochs": 10,
            "per_device_train_batch_size": 32,
            "max_grad_norm": 1.0,
            "weight_decay": 0.1,
            "warmup_steps": 0.06,
            "adam_beta2": 0.98,
            "adam_epsilon": 1e-6,
            "eval_strategy": "epoch",
            "save_strategy": "epoch",
        },
        options={"dev_cap": 1_600} if task == "mnli" else {},
        full={"learning_rate": 1e-5},
        seeds=(42, 2, 4, 6, 8),
        train_head=False,
        source=512,
        target=0,
        examples=examples,
    )


SETTINGS: dict[str, TaskSettings] = {
    one.task: one for one in (_glue("mnli", 392_702), _glue("sst2", 67_349), _SUMMARY, _TRANSLATION)
}
