"""A worker process, as the process that compares sees it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from unipetl.experiment.progress import Progress
from unipetl.files import from_json

PATIENCE = 5.0  # seconds between asking a process to end and ending it


@dataclass(frozen=True)
class Outcome:
    """How a run ended: ``error`` is None, or the kind of the error."""

    error: str | None = None
    message: str = ""
    trace: str = ""


class Worker:
    """A process that runs one spec after the other, and is replaced if it dies.

    It leads a process group of its own: Ctrl-C reaches it only through [stop][unipetl.experiment.pool.Worker.stop].

    Args:
        threads: how many threads a run may compute with.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.stopped = False
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()

    def run(self, spec: Path, listener: Callable[[Progress], None]) -> Outcome:
        """Run one spec to its end, whatever that is."""
        process = self._running()
        if process is None:
            return Outcome("Interrupted", "the comparison was interrupted")
        assert process.stdin is not None
        assert process.stdout is not None
        outcome: Outcome | None = None
        with suppress(BrokenPipeError):
            process.stdin.write(f"{spec}\n")
            process.stdin.flush()
        for line in process.stdout:
            try:
                event = from_json(line)
            except ValueError:  # a process that was killed while it wrote
                continue
            if "error" in event:
                outcome = Outcome(event["error"], event["message"], event["trace"])
            elif "exited" in event:
                return outcome or self._ended(int(event["exited"]))
            else:
                listener(Progress(**event))
        return outcome or self._ended(process.wait())

    def stop(self) -> None:
        """End the process and whatever it runs, for good."""
        with self._lock:
            self.stopped = True
        self.cancel()

    def cancel(self) -> None:
        """End the process and whatever it runs; the next spec gets a new one."""
        with self._lock:
            process = self._process
        if process is None:
            return
        for how in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, how)
            with suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE)
                break

    def close(self) -> None:
        """Let go of the pipes, once the process is ended and nobody listens."""
        if self._process is not None:
            _close(self._process)

    def _running(self) -> subprocess.Popen[str] | None:
        with self._lock:
            if self.stopped:
                return None
            if self._process is None or self._process.poll() is not None:
                self.close()
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "unipetl.experiment.worker", "--serve"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    encoding="utf-8",
                    env=self._environment(),
                    start_new_session=True,
                )
            return self._process

    def _environment(self) -> dict[str, str]:
        count = str(self.threads)
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
        return {**os.environ, **dict.fromkeys(names, count), "TOKENIZERS_PARALLELISM": "false", "MPLBACKEND": "agg"}

    @staticmethod
    def _ended(status: int) -> Outcome:
        if status == 0:
            return Outcome()
        if status < 0:
            name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
            hint = " (the system does this when memory runs out)" if name == "SIGKILL" else ""
            return Outcome("Killed", f"the run's process was ended by {name}{hint}")
        return Outcome("Ended", f"the run's process ended with status {status}")


def in_workers(jobs: int, work: Callable[[Worker], None]) -> None:
    """Call ``work`` in ``jobs`` threads, each with a worker of its own; the cores are shared out among them.

    Whatever is raised, an interrupt too, stops every worker first: ``work`` must return soon after ``worker.stopped``.
    """
    workers = [Worker(max(1, _cores() // jobs)) for _ in range(jobs)]
    threads = ThreadPoolExecutor(max_workers=jobs)
    try:
        running = [threads.submit(work, worker) for worker in workers]
        finished, _ = wait(running, return_when=FIRST_EXCEPTION)
        for one in finished:
            one.result()
    finally:
        for worker in workers:
            worker.stop()
        threads.shutdown(wait=True)
        for worker in workers:
            worker.close()


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _close(process: subprocess.Popen[str]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(BrokenPipeError):
                pipe.close()
