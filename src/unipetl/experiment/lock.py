"""One process at a time in a directory.

The lock is the system's, on a file ``.lock`` in the directory: it ends with the process that holds it, however that
ends, so nothing that was killed stands in the way. The file says who holds it, and is gone when it is let go.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from unipetl.errors import RunError, StorageError

NAME = ".lock"
ATTEMPTS = 100  # a file that its holder removes between two steps of ours is tried again


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold ``folder`` for the caller alone. It is made if absent; what was made and stays empty goes again.

    Where the file system has no locks, nothing is refused.

    Raises:
        RunError: somebody holds it; the message says who.
        StorageError: no file can be written there.
    """
    made = [one for one in (folder, *folder.parents) if not one.exists()]
    try:
        descriptor = _take(folder)
        try:
            yield
        finally:
            (folder / NAME).unlink(missing_ok=True)
            os.close(descriptor)
    finally:
        for one in made:
            with suppress(OSError):  # it has been used, here or by somebody else
                one.rmdir()


def _blocked(folder: Path) -> bool:
    """Return whether a file stands where the folder, or one above it, should be."""
    found = next((one for one in (folder, *folder.parents) if one.exists()), folder)
    return found.exists() and not found.is_dir()


def _take(folder: Path) -> int:
    """Return the open file that holds the lock."""
    path = folder / NAME
    why = "processes come and go there"
    for _ in range(ATTEMPTS):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
        except FileNotFoundError as error:  # somebody has let go of the folder and removed it, or none can be made
            why = error.strerror or str(error)
            continue
        except (FileExistsError, NotADirectoryError) as error:
            if not _blocked(folder):  # it was removed while mkdir looked whether it is a folder
                why = error.strerror or str(error)
                continue
            raise StorageError(f"cannot write in {str(folder)!r}: it is a file, or lies below one.") from None
        except OSError as error:
            raise StorageError(f"cannot write in {str(folder)!r}: {error.strerror or error}.") from error
        if not _lock(descriptor):
            holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another process"
            os.close(descriptor)
            raise RunError(
                f"{str(folder)!r} is in use by {holder}. Wait until that is done, end it, or choose another directory."
            )
        if _is(descriptor, path):
            os.ftruncate(descriptor, 0)
            since = time.strftime("%Y-%m-%d %H:%M:%S")
            os.pwrite(descriptor, f"process {os.getpid()} on {platform.node()}, since {since}".encode(), 0)
            return descriptor
        os.close(descriptor)
    raise StorageError(f"cannot write in {str(folder)!r}: {why}.")


def _lock(descriptor: int) -> bool:
    """Lock an open file; False if it is locked."""
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # this file system has no locks
        return True
    return True


def _is(descriptor: int, path: Path) -> bool:
    """Say whether the open file is still the one at ``path``, and not one that was removed meanwhile."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False
