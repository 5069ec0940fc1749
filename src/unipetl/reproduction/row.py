"""One row of a table of the paper, or one point of a figure, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: What a row's notation writes for the dropout of the checkpoint's attention -> its value by task, which the released
#: code gives the adapters at attention: 0.1 in BART, none in mBART.
ATTENTION_DROPOUT = {"xsum": "0.1", "wmt16-en-ro": "0.0", "sst2": "0.1", "mnli": "0.1"}


@dataclass(frozen=True)
class Cell:
    """What the paper prints for one row on one task.

    Args:
        task: unipetl's name of the task.
        scores: metric -> the printed mean, by unipetl's names of the metrics.
        spread: metric -> the printed standard deviation.
        method: notation on this task, where it differs from the row's.
        training: training arguments that differ from the task's.
    """

    task: str
    scores: Mapping[str, float]
    spread: Mapping[str, float] = field(default_factory=dict)
    method: str | None = None
    training: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """A row of a table, or a point of a figure.

    Args:
        place: the table or figure, such as ``table6``.
        key: its name there, for the command line.
        label: what the paper calls it.
        method: its notation; ``{a}`` stands for the checkpoint's attention dropout.
        cells: a cell per task.
        share: the printed share of parameters, in percent; None where none is printed.
        true_share: the share by the paper's own rule where the printed one does not follow it.
        copied: whether the paper took the numbers from elsewhere.
        notes: names of ambiguities, of [NOTES][unipetl.reproduction.notes.NOTES].
    """

    place: str
    key: str
    label: str
    method: str
    cells: tuple[Cell, ...]
    share: float | None = None
    true_share: float | None = None
    copied: bool = False
    notes: tuple[str, ...] = ()

    def cell(self, task: str) -> Cell | None:
        """Return what is printed for a task, if anything is."""
        return next((one for one in self.cells if one.task == task), None)

    def notation(self, task: str) -> str:
        """Return the method on a task."""
        cell = self.cell(task)
        return ((cell and cell.method) or self.method).format(a=ATTENTION_DROPOUT[task])


def xsum(
    *scores: float, spread: tuple[float, ...] = (), method: str | None = None, training: Mapping[str, Any] | None = None
) -> Cell:
    """Return a cell of ROUGE-1, -2 and -L on XSum, or of ROUGE-2 alone."""
    names = ("rouge1", "rouge2", "rougeL") if len(scores) == 3 else ("rouge2",)
    return Cell(
        "xsum",
        dict(zip(names, scores, strict=True)),
        dict(zip(names, spread, strict=True)) if spread else {},
        method,
        training or {},
    )


def ro(
    bleu: float, spread: float | None = None, *, method: str | None = None, training: Mapping[str, Any] | None = None
) -> Cell:
    """Return a cell of BLEU on WMT 2016 en-ro, by the paper's pipeline."""
    std = {} if spread is None else {"romanian_bleu": spread}
    return Cell("wmt16-en-ro", {"romanian_bleu": bleu}, std, method, training or {})


def accuracy(task: str, mean: float, spread: float | None = None) -> Cell:
    """Return a cell of accuracy on MNLI or SST-2."""
    return Cell(task, {"accuracy": mean}, {} if spread is None else {"accuracy": spread})
