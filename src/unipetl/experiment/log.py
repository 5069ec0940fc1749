"""What the Trainer logs, as lines of JSON in the run's directory and as progress for whoever listens."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from unipetl.experiment.directory import json_line
from unipetl.experiment.progress import Listener, Progress


class Log(TrainerCallback):
    """Writes a line per log and per checkpoint, with the step and the seconds of training so far.

    Args:
        path: the file, which is added to.
        listener: told of every step.
        before: seconds of training that an interrupted run had behind it.
    """

    def __init__(self, path: Path, listener: Listener, before: float) -> None:
        self.path, self.listener, self.before = path, listener, before
        self.started = time.perf_counter()

    def seconds(self) -> float:
        """Return the seconds of training so far, earlier parts included."""
        return round(self.before + time.perf_counter() - self.started, 3)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write what was logged."""
        del args, control, kwargs
        values = {key: value for key, value in (logs or {}).items() if isinstance(value, (int, float))}
        self._write({"step": state.global_step, "seconds": self.seconds(), **values})
        self.listener(Progress("train", state.global_step, state.max_steps, values))

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write that there is a checkpoint."""
        del args, control, kwargs
        self._write({"step": state.global_step, "seconds": self.seconds(), "checkpoint": state.global_step})

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Tell the listener how far it is."""
        del args, control, kwargs
        self.listener(Progress("train", state.global_step, state.max_steps))

    def _write(self, row: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json_line(row))
