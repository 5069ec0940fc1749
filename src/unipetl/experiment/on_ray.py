"""Runs of a comparison on a Ray cluster, each in a process of its own on whatever node has room.

A node that sees the comparison's directory works in it, so that a run whose worker was killed goes on from its last
checkpoint on another. A node that does not works in a directory of its own, and the finished run's files come
back. Either way the files are those of a local run.

Ray's own messages are pickled: everybody who can reach a cluster can run code on it. That is Ray's design, and the
cluster's network must be closed to others; nothing that is read from a run's files is ever unpickled.
"""

from __future__ import annotations

import importlib
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import unipetl
from unipetl.errors import MissingPackageError, RunError
from unipetl.experiment.directory import write_json
from unipetl.experiment.lock import alone
from unipetl.experiment.pool import Outcome, Worker
from unipetl.experiment.progress import silent
from unipetl.experiment.worker import Spec
from unipetl.files import from_json, write_atomically

#: How often a run is tried again whose worker or node was lost.
RETRIES = 3
#: How many seconds a run waits for what is left of a killed worker to let go of its directory.
PATIENCE = 60.0

Key = TypeVar("Key")


@dataclass(frozen=True)
class Done:
    """What comes back from a node: how the run ended, and its files where the node does not share the directory."""

    outcome: Outcome
    files: Mapping[str, bytes] | None = None
    errors: str = ""


def run_all(specs: Mapping[Key, Path], address: str, settle: Callable[[Key, Outcome], None]) -> None:
    """Run every spec on the cluster, as many at once as it has room for.

    Args:
        specs: the specs' files, by a key of the caller's.
        address: the cluster's, such as ``auto``, ``10.0.0.1:6379`` or ``ray://10.0.0.1:10001``.
        settle: called with the key and the outcome of every run, one after the other, as they end.

    Raises:
        MissingPackageError: Ray is not installed.
        RunError: there is no cluster at ``address``.
        KeyboardInterrupt: after the runs were cancelled.
    """
    ray = installed()
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", ignore_reinit_error=True)
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        raise RunError(f"no Ray cluster answers at {address!r}: {error}. Start one with `ray start --head`.") from error
    gpus = 1 if ray.cluster_resources().get("GPU", 0) else 0
    remote = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=RETRIES)(work)
    waiting: dict[Any, Key] = {}
    try:
        for key, path in specs.items():
            waiting[remote.remote(str(path.resolve()), path.read_text(encoding="utf-8"), unipetl.__version__)] = key
        while waiting:
            (ended, *_), _ = ray.wait(list(waiting), num_returns=1)
            key = waiting.pop(ended)
            settle(key, _outcome(ray, ended, specs[key]))
    finally:
        for one in waiting:
            ray.cancel(one, force=True)
        ray.shutdown()


def work(path: str, text: str, version: str) -> Done:
    """Run one spec; this is what a node does.

    Args:
        path: of the spec's file, as the one who compares sees it.
        text: what that file holds.
        version: the version of unipetl that compares; another one could give other results.
    """
    if version != unipetl.__version__:
        said = f"this node has unipetl {unipetl.__version__}, and the comparison is made with {version}."
        return Done(Outcome("RunError", said))
    spec, there = Spec(**from_json(text)), Path(path)
    if there.is_file() and there.read_text(encoding="utf-8") == text:
        absolute = replace(spec, directory=str(_beside(there, spec.directory)), errors=str(_beside(there, spec.errors)))
        return Done(_run(absolute, there.with_name(f".{there.name}")))
    with tempfile.TemporaryDirectory(prefix="unipetl-") as folder:
        here = Path(folder)
        moved = replace(spec, directory=str(here / "run"), errors=str(here / "stderr.txt"))
        outcome = _run(moved, here / "spec.json")
        said = (
            (here / "stderr.txt").read_text(encoding="utf-8", errors="replace")
            if (here / "stderr.txt").is_file()
            else ""
        )
        return Done(outcome, _packed(here / "run"), said)


def _beside(spec: Path, name: str) -> Path:
    """Return a file that lies beside the spec's, wherever the process that compares was started."""
    return spec.parent / Path(name).name


def _run(spec: Spec, path: Path) -> Outcome:
    """Run a spec in a process that ends with this one."""
    write_json(path, asdict(spec))
    worker = Worker(_threads())
    try:
        _wait_for(Path(spec.directory))
        return worker.run(path, silent)
    finally:
        worker.stop()
        worker.close()
        path.unlink(missing_ok=True)


def _threads() -> int:
    """Return how many cores Ray gives this run."""
    from ray import get_runtime_context

    if not importlib.import_module("ray").is_initialized():
        return 1
    return max(1, int(get_runtime_context().get_assigned_resources().get("CPU", 1)))


def _wait_for(directory: Path) -> None:
    """Wait until nobody is at work in a run's directory; who still is after a while is left to be reported."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            with alone(directory):
                return
        except RunError:
            time.sleep(0.2)


def _packed(folder: Path) -> dict[str, bytes]:
    """Return a directory's files by their paths."""
    files = (one for one in sorted(folder.rglob("*")) if one.is_file() and one.name != ".lock")
    return {one.relative_to(folder).as_posix(): one.read_bytes() for one in files}


def _outcome(ray: ModuleType, ended: Any, path: Path) -> Outcome:
    """Return how a run ended, after its files are where they belong."""
    try:
        done: Done = ray.get(ended)
    except ray.exceptions.RayError as error:  # its worker was lost once too often, or its node has no unipetl
        first = next(iter(str(error).strip().splitlines()), "")
        return Outcome(type(error).__name__, f"the run was tried {RETRIES + 1} times on the cluster: {first}")
    spec = Spec(**from_json(path.read_text(encoding="utf-8")))
    if done.errors:
        Path(spec.errors).write_text(done.errors, encoding="utf-8")
    if done.files is not None:
        _unpack(done.files, Path(spec.directory))
    return done.outcome


def _unpack(files: Mapping[str, bytes], folder: Path) -> None:
    """Write a run's files, the one that says that it is finished last."""
    shutil.rmtree(folder, ignore_errors=True)
    for name in sorted(files, key=lambda name: name == "metrics.json"):
        target = (folder / name).resolve()
        if not target.is_relative_to(folder.resolve()):
            raise RunError(f"a node sent a file for {name!r}, which is outside the run's directory.")
        content = files[name]
        write_atomically(target, lambda temporary, content=content: _write(temporary, content))  # type: ignore[misc]


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def installed() -> ModuleType:
    """Return the package ray.

    Raises:
        MissingPackageError: it is not installed.
    """
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise MissingPackageError(
            f"ray is needed for runs on a cluster and is not here ({error}). Install it: pip install 'unipetl[ray]'"
        ) from error
