"""The workers, one for each library, each in its own environment, that take turns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


class WorkerEndedError(RuntimeError):
    """A worker's process is gone; the message ends with what it said last."""


def worker_environment(library: str, threads: int) -> dict[str, str]:
    """Return what a library's process gets beyond this one's environment; only ours sees our sources."""
    paths = [ROOT, ROOT / "src"] if library == "unipetl" else [ROOT]
    return {
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
        "HF_HUB_OFFLINE": "1",
    }


class Member:
    """A worker's process, seen from outside."""

    def __init__(self, library: str, python: str, device: str, threads: int) -> None:
        self.library, self.python = library, python
        self.log = tempfile.TemporaryFile(mode="w+", encoding="utf-8")  # noqa: SIM115 - closed with the process
        environment = os.environ | worker_environment(library, threads)
        command = [python, "-W", "ignore", "-m", "benchmarks.worker", library]
        command += ["--device", device, "--threads", str(threads)]
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )

    def ask(self, do: str, **more: Any) -> dict[str, Any]:
        """Send a command and wait for its answer, an error among them. Raises WorkerEndedError without one."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps({"do": do, **more}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise WorkerEndedError(f"The worker of {self.library} ended. Its last words:\n{self.last_words()}")
        return json.loads(line)

    def last_words(self, lines: int = 20) -> str:
        self.log.seek(0)
        return "".join(self.log.readlines()[-lines:])

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
        self.log.close()


@contextmanager
def crew(pythons: Mapping[str, str], device: str, threads: int) -> Iterator[dict[str, Member]]:
    """Start a worker for every library, by its interpreter; stop them at the end."""
    with ExitStack() as stack:
        members = {}
        for library, python in pythons.items():
            members[library] = Member(library, python, device, threads)
            stack.callback(members[library].close)
        yield members


def own_python() -> str:
    return sys.executable
