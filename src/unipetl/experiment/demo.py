"""The comparison that ``unipetl compare --demo`` makes: every kind of method on two small real tasks.

The methods that have a size get the one at which they train the same number of parameters, solved on the task's own
model; the paper's shares, 6.7 % where it writes and 0.5 % where it classifies, are the budgets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from unipetl.experiment.budget import fill
from unipetl.experiment.grid import ComparePlan
from unipetl.tasks import get_task


@dataclass(frozen=True)
class Setting:
    """A method of the demo on one task: notation with ``?`` for the size that is solved for, and its learning rate.

    ``quick_learning_rate`` is for the quick demo, whose fewer steps need a higher rate; 0 is the same rate. ``largest``
    bounds the size where a larger one would cost time rather than parameters: a prompt makes every
    sequence longer.
    """

    method: str
    learning_rate: float = 0.0
    largest: int = 4096
    quick_learning_rate: float = 0.0

    def rate(self, quick: bool) -> float:
        """Return the learning rate of one size of the demo; 0 is none."""
        return self.quick_learning_rate or self.learning_rate if quick else self.learning_rate


@dataclass(frozen=True)
class Settings:
    """What the demo does on one task: its share of parameters, how long it trains, and its methods.

    ``quick_training`` is what differs in the quick demo: fewer examples need smaller batches for enough steps.
    """

    share: float
    training: dict[str, object]
    quick_training: dict[str, object]
    limit: int
    evaluation_limit: int
    quick_limit: int
    quick_evaluation_limit: int
    methods: dict[str, Setting]


PRONOUNCE = Settings(
    share=0.067,
    training={"num_train_epochs": 2, "per_device_train_batch_size": 32},
    quick_training={},
    limit=8000,
    evaluation_limit=600,
    quick_limit=2000,
    quick_evaluation_limit=200,
    methods={
        "zero-shot": Setting("none"),
        "head only": Setting("head_only", 1e-3),
        "full fine-tuning": Setting("full", 1e-3),
        "BitFit": Setting("bitfit", 1e-2),
        "prompt tuning": Setting("prompt_tuning(length=?)", 1e-2, largest=10),
        "prefix tuning": Setting("prefix_tuning(length=16, mlp=?)", 1e-2),
        "adapter": Setting("adapter(rank=?)", 5e-3),
        "LoRA": Setting("lora(rank=?, scale=4, at=ffn)", 5e-3),
        "parallel adapter": Setting("parallel_adapter(rank=?)", 5e-3),
        "scaled parallel adapter": Setting("scaled_parallel_adapter(rank=?, scale=4)", 5e-3),
        "multi-head parallel adapter": Setting("multi_head_parallel_adapter(rank=?)", 5e-3),
        "MAM": Setting("mam(length=4, rank=?, mlp=none, scale=4)", 5e-3),
    },
)
SENTIMENT = Settings(
    share=0.005,
    training={
        "num_train_epochs": 1,
        "per_device_train_batch_size": 8,
        "train_sampling_strategy": "group_by_length",  # less padding
    },
    quick_training={"per_device_train_batch_size": 4},
    limit=2000,
    evaluation_limit=600,
    quick_limit=400,
    quick_evaluation_limit=200,
    methods={
        "zero-shot": Setting("none"),
        "head only": Setting("head_only", 1e-2),
        "full fine-tuning": Setting("full", 1e-4),
        "BitFit": Setting("bitfit", 5e-3),
        "prompt tuning": Setting("prompt_tuning(length=?)", 1e-2, largest=10),
        "prefix tuning": Setting("prefix_tuning(length=?, mlp=none)", 1e-2),
        "adapter": Setting("adapter(rank=?)", 1e-3, quick_learning_rate=3e-3),
        "LoRA": Setting("lora(rank=?, scale=2)", 1e-3, quick_learning_rate=3e-3),
        "parallel adapter": Setting("parallel_adapter(rank=?)", 1e-3, quick_learning_rate=3e-3),
        "scaled parallel adapter": Setting("scaled_parallel_adapter(rank=?, scale=2)", 1e-3),
        "multi-head parallel adapter": Setting("multi_head_parallel_adapter(rank=?)", 3e-3),
        "MAM": Setting("mam(length=?, rank=?, mlp=none, scale=2)", 1e-3, quick_learning_rate=3e-3),
    },
)
TASKS = {"pronounce": PRONOUNCE, "sentiment": SENTIMENT}
SHARED = {
    "per_device_eval_batch_size": 64,
    "lr_scheduler_type": "linear",
    "warmup_steps": 0.1,
    "logging_steps": 25,
    "save_strategy": "no",
    "use_cpu": True,
}
SEEDS = (0, 1)


def demo_plan(*, quick: bool = False) -> ComparePlan:
    """Return the plan: twelve methods, two tasks.

    Args:
        quick: one seed and fewer examples; the order of the methods then means little.

    Raises:
        DownloadError: the tasks' models and data must be fetched and cannot be.
    """
    tasks: dict[str, Any] = {}
    for name, settings in TASKS.items():
        task = get_task(name)
        model = task.prepare(**task.few()).model
        budget = round(settings.share * sum(one.numel() for one in model.parameters()))
        tasks[name] = {
            "limit": settings.quick_limit if quick else settings.limit,
            "evaluation_limit": settings.quick_evaluation_limit if quick else settings.evaluation_limit,
            "training": {**settings.training, **(settings.quick_training if quick else {})},
            "methods": {
                label: {
                    "method": fill(one.method, model, budget, largest=one.largest),
                    "training": {"learning_rate": one.rate(quick)} if one.rate(quick) else {},
                }
                for label, one in settings.methods.items()
            },
        }
    methods: dict[str, Any] = {label: one.method.replace("?", "1") for label, one in PRONOUNCE.methods.items()}
    return ComparePlan(
        name="Demo, quick" if quick else "Demo",
        tasks=tasks,
        methods=methods,
        seeds=SEEDS[:1] if quick else SEEDS,
        training=SHARED,
    )
