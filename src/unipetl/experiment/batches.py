"""Batches of a budget of tokens: many short examples or few long ones, each batch about the same work.

The cost of a batch is its number of examples times the length of its longest one, which is what it has with padding.
Each epoch the examples are sorted by length, those of equal length in a new order; filled into batches from the
shortest on, each as full as the budget allows; and the batches are shuffled. Everything follows from the lengths, the
budget, the seed and the epoch: a resumed run finds the same batches, and every process of a distributed run works out
all of them and takes its own.

Of n processes, each takes one of n neighbours in length at a time, so that none waits for another. Where the number of
batches is no multiple of n, the fullest are halved: every example comes once an epoch, and every process has as many
batches as the others. (Where all batches have one example, some come twice, as there is nothing to halve.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import datasets
import numpy as np
from torch.utils.data import Sampler

from unipetl.errors import RunError


class TokenBudget(Sampler[list[int]]):
    """Batches of examples' numbers, none above a budget of tokens.

    Args:
        lengths: of every example, in tokens.
        budget: tokens of a batch, padding included.
        seed: of the order.
        processes, process: how many share an epoch, and which of them this is.

    Raises:
        RunError: an example alone is above the budget, or there are fewer examples than processes.
    """

    def __init__(
        self, lengths: Sequence[int], budget: int, *, seed: int = 0, processes: int = 1, process: int = 0
    ) -> None:
        longest = max(lengths, default=0)
        if longest > budget:
            raise RunError(
                f"max_tokens_per_batch is {budget}, and the longest example alone has {longest} tokens. Give at least "
                "as many, or let the task cut its inputs shorter."
            )
        if len(lengths) < processes:
            raise RunError(f"{len(lengths)} examples cannot be shared by {processes} processes.")
        self.lengths = np.asarray(lengths, dtype=np.int64)
        self.budget, self.seed = budget, seed
        self.processes, self.process = processes, process
        self.epoch = 0
        self._sizes = _evened(_sizes(np.sort(self.lengths), budget), processes)

    def set_epoch(self, epoch: int) -> None:
        """Take the order of an epoch, from 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Return how many batches this process has in an epoch, which is the same in each."""
        return len(self._sizes) // self.processes

    def __iter__(self) -> Iterator[list[int]]:
        """Return this process's batches of the epoch."""
        draw = np.random.default_rng([self.seed, self.epoch])
        shuffled = draw.permutation(len(self.lengths))
        by_length = shuffled[np.argsort(self.lengths[shuffled], kind="stable")]
        ends = np.cumsum(self._sizes)
        by_length = np.concatenate([by_length, by_length[: ends[-1] - len(by_length)]])
        for group in draw.permutation(len(self)):
            number = group * self.processes + self.process
            yield by_length[ends[number] - self._sizes[number] : ends[number]].tolist()


def row_lengths(rows: Any, *, encoder_decoder: bool) -> list[int]:
    """Return what every row counts, in tokens.

    The longer of input and target for an encoder-decoder, which holds them apart; both together for a model that reads
    them in one line; the input for a classifier.

    Raises:
        RunError: the rows have no ``input_ids``, or cannot be counted.
    """
    try:
        if isinstance(rows, datasets.Dataset):
            rows = rows.select_columns([name for name in ("input_ids", "labels") if name in rows.column_names])
        pairs = [(len(row["input_ids"]), _length(row.get("labels"))) for row in (rows[i] for i in range(len(rows)))]
    except (TypeError, KeyError, AttributeError) as error:
        raise RunError(f"max_tokens_per_batch needs a data set of a known length with input_ids: {error!r}.") from error
    return [max(pair) if encoder_decoder else sum(pair) for pair in pairs]


def _length(labels: Any) -> int:
    """Return the length of labels that are a sequence, and 0 for a classifier's."""
    try:
        return len(labels)
    except TypeError:
        return 0


def _sizes(lengths: np.ndarray[Any, Any], budget: int) -> list[int]:
    """Return the number of examples of every batch, filled from the shortest on."""
    sizes, count = [], 0
    for length in lengths.tolist():
        if (count + 1) * length > budget:
            sizes.append(count)
            count = 0
        count += 1
    return [*sizes, count] if count else sizes


def _evened(sizes: list[int], processes: int) -> list[int]:
    """Halve the fullest batches until their number is a multiple of ``processes``."""
    sizes = list(sizes)
    while len(sizes) % processes:
        fullest = max(range(len(sizes)), key=sizes.__getitem__)
        half = sizes[fullest] // 2
        sizes[fullest : fullest + 1] = [half, sizes[fullest] - half] if half else [1, 1]
    return sizes
