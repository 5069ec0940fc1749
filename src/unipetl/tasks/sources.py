"""Which examples a task trains, chooses checkpoints and is judged on: from the hub, or from a user's own files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import datasets

from unipetl.errors import TaskError
from unipetl.tasks.hub import Hub
from unipetl.tasks.options import SourceOptions
from unipetl.tasks.rows import Rows
from unipetl.tasks.tables import read_table
from unipetl.tasks.task import check_limit

#: Of files without a validation set, this share of the training examples is kept back, and at most so many.
HELD_OUT, MOST_HELD_OUT = 10, 1_000

#: What the splits are called in messages.
TRAINING, DEVELOPMENT, EVALUATION = "training", "development", "evaluation"

Judged = Literal["validation", "test"]


@dataclass(frozen=True)
class Splits:
    """The examples of a task.

    Args:
        train: what is learnt from.
        development: what checkpoints are compared on; None for ``evaluation``.
        evaluation: what the run is judged on.
        also: further sets that are scored, by name.
        notes: what was done that nobody asked for.
    """

    train: Rows
    development: Rows | None
    evaluation: Rows
    also: Mapping[str, Rows]
    notes: tuple[str, ...] = ()

    def sets(self) -> dict[str, Rows]:
        """Return every split there is, by a name for messages."""
        own = {TRAINING: self.train, DEVELOPMENT: self.development, EVALUATION: self.evaluation}
        found = own | {f"{name!r}": rows for name, rows in self.also.items()}
        return {name: rows for name, rows in found.items() if rows is not None}

    def fields(self, ready: Mapping[str, datasets.Dataset]) -> dict[str, Any]:
        """Return the fields of [Prepared][unipetl.tasks.task.Prepared] that hold data sets, from those of [sets][]."""
        return {
            "train": ready[TRAINING],
            "development": ready.get(DEVELOPMENT),
            "evaluation": ready[EVALUATION],
            "also": {name: ready[f"{name!r}"] for name in self.also},
        }


@dataclass(frozen=True)
class Source:
    """Where a task's examples are, and what it is judged on.

    Args:
        task: its name, for messages.
        hub: the data set on the hub; None if the task lives on files alone.
        judged: the split that a run is judged on where there is one and the options do not say.
        also: further splits of the hub that are scored, by name.
    """

    task: str
    hub: Hub | None
    judged: Judged
    also: Mapping[str, str]

    def read(self, options: SourceOptions, limit: int | None, evaluation_limit: int | None) -> Splits:
        """Return the examples that the options and the limits leave.

        Raises:
            TaskError: a limit is not positive, or a file is missing or cannot be used.
            DownloadError: something must be fetched and cannot be.
        """
        limit, evaluation_limit = check_limit(limit, "limit"), check_limit(evaluation_limit, "evaluation_limit")
        if options.train or options.validation or options.test:
            train, validation, test, notes = self._files(options)
        elif self.hub is None:
            raise TaskError(f"task {self.task!r} needs files: give the option train=..., and validation=... too.")
        else:
            train, validation, notes = self.hub.load("train"), self.hub.load("validation"), ()
            test = self.hub.load("test") if self._judged(options) == "test" else None
        development = validation.first(options.dev_cap)
        judged = self._judged(options, has_test=test is not None)
        rest = self._rest(validation, len(development)) if judged == "rest" else None
        evaluation = {"validation": validation, "test": test, "development": development, "rest": rest}[judged]
        assert evaluation is not None
        apart = development is not evaluation
        return Splits(
            train=train.sample(limit),
            development=development.sample(evaluation_limit) if apart else None,
            evaluation=evaluation.sample(evaluation_limit),
            also={name: rows.sample(evaluation_limit) for name, rows in self._also(options).items()},
            notes=notes,
        )

    def _judged(self, options: SourceOptions, *, has_test: bool = True) -> str:
        if options.evaluate_on is None:
            return "test" if self.judged == "test" and has_test else "validation"
        if options.evaluate_on == "test" and not has_test:
            raise TaskError(f"task {self.task!r}: evaluate_on is 'test', and there is no file for it: give test=...")
        return options.evaluate_on

    def _rest(self, validation: Rows, count: int) -> Rows:
        if count == len(validation):
            raise TaskError(
                f"task {self.task!r}: evaluate_on is 'rest', what dev_cap leaves of the validation set, and of its "
                f"{len(validation)} examples nothing is left: give a smaller dev_cap."
            )
        return validation.select(range(count, len(validation)))

    def _files(self, options: SourceOptions) -> tuple[Rows, Rows, Rows | None, tuple[str, ...]]:
        if options.train is None:
            raise TaskError(f"task {self.task!r}: found files to evaluate on and none to train on; give train=... too.")
        train, test = read_table(options.train), read_table(options.test) if options.test else None
        if options.validation is not None:
            return train, read_table(options.validation), test, ()
        count = min(len(train) // HELD_OUT, MOST_HELD_OUT)
        if count == 0:
            raise TaskError(
                f"{train.source}: {len(train)} examples are too few to keep some back for validation; "
                "give validation=..."
            )
        kept, rest = train.parted(count)
        note = f"{train.source}: {count} of {len(train)} examples are kept back for validation, as no file was given."
        return rest, kept, test, (note,)

    def _also(self, options: SourceOptions) -> dict[str, Rows]:
        named = {name: read_table(path) for name, path in options.also.items()}
        if self.hub is not None and not (options.train or options.validation or options.test):
            named |= {name: self.hub.load(split) for name, split in self.also.items() if name not in named}
        return named
