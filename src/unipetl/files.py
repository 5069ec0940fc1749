"""Writing files so that a crash leaves the old content or the new, never a half."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import xxhash

from unipetl.errors import StorageError


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, flush it to the disk, and rename it to ``path``.

    Raises:
        StorageError: the file system refuses; ``path`` is as it was and the temporary file is gone.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        flush(temporary)
        temporary.replace(path)
        flush(path.parent)
    except OSError as error:
        raise StorageError(f"cannot write {str(path)!r}: {error.strerror or error}.") from error
    finally:
        with contextlib.suppress(OSError):  # gone already, or its folder cannot be reached
            temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """Write ``text`` in UTF-8, atomically."""
    write_atomically(path, lambda temporary: _write(temporary, text))


def to_yaml(data: Any) -> str:
    """Return plain data as YAML in the order given, by libyaml where PyYAML has it, which is much faster."""
    import yaml

    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    text: str = yaml.dump(data, Dumper=dumper, sort_keys=False, allow_unicode=True)
    return text


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def flush(path: Path) -> None:
    """Wait until a file, or a folder's list of files, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def from_json(text: str | bytes) -> Any:
    """Return what a JSON text says.

    Raises:
        ValueError: it is no JSON, or nested too deep to be read.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def memory_text(size: int) -> str:
    """Return a number of bytes as people read it, in MiB of 1024 * 1024 bytes, or in GiB from one on."""
    if size >= 2**30:
        return f"{size / 2**30:,.1f} GiB"
    return f"{size / 2**20:.{0 if size >= 100 * 2**20 else 1}f} MiB"


def refuse_taken(target: Path, what: str) -> None:
    """Refuse a folder to write that is more than an empty folder: a file, a link to nothing, somebody's work.

    Args:
        target: the folder.
        what: what is to be written there, such as "an export".

    Raises:
        StorageError: it is taken.
    """
    if target.is_dir() and not any(target.iterdir()):
        return
    if target.exists() or target.is_symlink():
        raise StorageError(f"{str(target)!r} exists; {what} is written into a folder of its own.")


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    for chunk in _chunks(path):
        digest.update(chunk)
    return digest.hexdigest()


def xxh128(path: Path) -> str:
    """Return the XXH128 of a file's content, in hexadecimal: fast, and no proof against intent."""
    digest = xxhash.xxh3_128()
    for chunk in _chunks(path):
        digest.update(chunk)
    return digest.hexdigest()


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            yield chunk
