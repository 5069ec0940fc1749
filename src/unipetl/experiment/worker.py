"""Runs recipes in processes of their own: ``python -m unipetl.experiment.worker SPEC.json``.

With ``--serve`` the specs' paths come on standard input, one a line. On Linux each is then run in a fork of this
process, which has imported everything and computed nothing, so that a run starts at once and is still alone in
its process. What happens is told on standard output, one line of JSON per event.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from unipetl.errors import PetlError
from unipetl.files import from_json

#: A fork inherits the imports; elsewhere than on Linux system libraries may not survive one.
FORKS = sys.platform == "linux"
POLL = 0.1  # seconds


@dataclass(frozen=True)
class Spec:
    """What a worker is to run.

    Attributes:
        recipe: the recipe as plain data, and the seed.
        directory: the run's directory.
        errors: a file for what libraries write on standard error.
        task: ``module:name`` of the task object, where it is not one of unipetl's.
    """

    recipe: dict[str, Any]
    seed: int
    directory: str
    errors: str
    task: str | None = None


def main(arguments: Sequence[str]) -> int:
    """Run one spec, or serve them; the exit status is 0 if the run succeeded."""
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # asking for an accelerator must not start one: forks
    events = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # a library that prints does not disturb the events
    if list(arguments) == ["--serve"]:
        return _serve(events)
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m unipetl.experiment.worker SPEC.json | --serve\n")
        return 2
    return _run(Path(arguments[0]), events)


def _run(path: Path, events: TextIO) -> int:
    spec = Spec(**from_json(path.read_text(encoding="utf-8")))
    errors = Path(spec.errors)
    with errors.open("w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 2)
        os.dup2(file.fileno(), 1)
    try:
        _whole(spec, events)
    except PetlError as error:
        trace = traceback.format_exc() if error.__cause__ is not None else ""
        _tell(events, error=type(error).__name__, message=str(error), trace=trace)
        return 1
    except Exception as error:  # noqa: BLE001 - whatever a run dies of is that run's result
        _tell(events, error=type(error).__name__, message=str(error), trace=traceback.format_exc())
        return 1
    return 0


def _whole(spec: Spec, events: TextIO) -> None:
    import datasets
    from transformers.utils import logging

    from unipetl.experiment.progress import Progress
    from unipetl.experiment.recipe import Recipe
    from unipetl.experiment.running import run

    logging.disable_progress_bar()
    datasets.disable_progress_bars()
    told = 0.0

    def listen(progress: Progress) -> None:
        nonlocal told
        if (
            progress.values
            or progress.phase != "train"
            or progress.step == progress.total
            or time.monotonic() - told > POLL
        ):
            told = time.monotonic()
            _tell(events, **asdict(progress))

    task = None
    if spec.task is not None:
        module, _, name = spec.task.partition(":")
        task = getattr(importlib.import_module(module), name)
    run(Recipe(**spec.recipe), spec.seed, spec.directory, progress=listen, task=task)


def _tell(events: TextIO, **event: Any) -> None:
    with suppress(BrokenPipeError):  # nobody listens any more
        events.write(json.dumps(event) + "\n")
        events.flush()


def _serve(events: TextIO) -> int:
    import unipetl.experiment.running  # noqa: F401 - what every run needs, before the first fork

    pending = b""
    child: int | None = None
    while True:
        ready, _, _ = select.select([0], [], [], POLL if child is not None else None)
        if ready:
            given = os.read(0, 65536)
            if not given:  # whoever started this is gone: so is the run
                if child is not None:
                    os.kill(child, signal.SIGKILL)
                return 0
            pending += given
        if child is not None:
            done, status = os.waitpid(child, os.WNOHANG)
            if not done:
                continue
            child = None
            _tell(events, exited=os.waitstatus_to_exitcode(status))
        if b"\n" in pending:
            line, _, pending = pending.partition(b"\n")
            child = _start(line.decode(), events)


def _start(path: str, events: TextIO) -> int:
    if not FORKS:
        command = [sys.executable, "-m", "unipetl.experiment.worker", path]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=events).pid
    child = os.fork()
    if child == 0:
        status = 70
        try:
            status = _run(Path(path), events)
        finally:
            with suppress(OSError, ValueError):
                events.flush()
                sys.stderr.flush()
            os._exit(status)
    return child


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
