"""One library in a process and an environment of its own, which measures when it is told to.

Reads a line of JSON, does what it says and answers with a line; `crew.py` is the other end.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import traceback
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from benchmarks.kinds import Kind, start
from benchmarks.libraries import Library, library
from benchmarks.shapes import shape


class Worker:
    """Holds at most one kind of measurement at a time."""

    def __init__(self, own: Library, device: str) -> None:
        self.library, self.device = own, device
        self.kind: Kind | None = None

    def hello(self) -> dict[str, Any]:
        return {
            "python": sys.version.split()[0],
            "versions": {name: version(name) for name in self.library.PACKAGES},
            "threads": torch.get_num_threads(),
        }

    def start(self, kind: str, of: str, changes: dict[str, Any], methods: list[str]) -> dict[str, Any]:
        self.end()
        self.kind = start(kind, shape(of, **changes), self.library, methods, self.device)
        return {"reference": self.kind.reference, "problems": self.kind.problems, "facts": self.kind.facts}

    def round(self, number: int) -> dict[str, Any]:
        if self.kind is None:
            raise RuntimeError("a round of nothing: no kind was started")
        gc.collect()
        return {"timings": self.kind.round(number)}

    def end(self) -> dict[str, Any]:
        self.kind = None
        gc.collect()
        if self.device != "cpu":
            torch.cuda.empty_cache()
        return {}


def serve(worker: Worker, commands: Any, answers: Any) -> None:
    """Answer every line until there is none."""
    does = {"hello": worker.hello, "start": worker.start, "round": worker.round, "end": worker.end}
    for line in commands:
        told = json.loads(line)
        try:
            answer = does[told.pop("do")](**told)
        except Exception as error:  # noqa: BLE001 - the other end decides what an error ends
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"[:500]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("library")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    serve(Worker(library(chosen.library), chosen.device), sys.stdin, answers)


if __name__ == "__main__":
    main()
