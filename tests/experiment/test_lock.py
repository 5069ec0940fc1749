"""A directory is held by one process at a time, and by none that has ended."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from unipetl.errors import RunError, StorageError
from unipetl.experiment import lock
from unipetl.experiment.lock import NAME, alone


def test_the_second_is_refused_and_told_who_is_first(tmp_path):
    with alone(tmp_path):
        with (
            pytest.raises(RunError, match=f"'{tmp_path}' is in use by process {os.getpid()} on .*, since 20"),
            alone(tmp_path),
        ):
            pass
        assert (tmp_path / NAME).exists()
    assert list(tmp_path.iterdir()) == []
    with alone(tmp_path):
        pass


def test_it_is_let_go_after_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), alone(tmp_path):
        raise ZeroDivisionError
    with alone(tmp_path):
        pass


def test_a_killed_process_is_not_in_the_way(tmp_path):
    code = f"""
from pathlib import Path
from unipetl.experiment.lock import alone
with alone(Path({str(tmp_path)!r})):
    print("held", flush=True)
    input()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(RunError, match=f"process {other.pid} "), alone(tmp_path):
            pass
        other.send_signal(signal.SIGKILL)
    assert f"process {other.pid} " in (tmp_path / NAME).read_text()
    with alone(tmp_path):
        assert f"process {os.getpid()} " in (tmp_path / NAME).read_text()
    assert list(tmp_path.iterdir()) == []


def test_folders_that_were_made_go_again_unless_they_were_used(tmp_path):
    with alone(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b").is_dir()
    assert list(tmp_path.iterdir()) == []
    with alone(tmp_path / "a" / "b"):
        (tmp_path / "a" / "kept").touch()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["kept"]


def test_never_two_at_once(tmp_path):
    """Threads take, use and let go as fast as they can: files and folders come and go under each other."""
    inside, most, entered = [], [], []

    def work():
        for _ in range(150):
            try:
                with alone(tmp_path / "made"):
                    inside.append(1)
                    most.append(len(inside))
                    inside.pop()
                    entered.append(1)
            except RunError:
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(most) == {1}
    assert len(entered) > 10


def test_a_file_that_was_removed_meanwhile_holds_nothing(tmp_path, monkeypatch):
    right, removed = lock._lock, []

    def late(descriptor):
        if not removed:  # its holder lets go between our opening and locking it
            (tmp_path / NAME).unlink()
            removed.append(1)
        return right(descriptor)

    monkeypatch.setattr(lock, "_lock", late)
    with alone(tmp_path), pytest.raises(RunError, match="in use"), alone(tmp_path):
        pass


@pytest.mark.parametrize("reason", [errno.ENOLCK, errno.ENOTSUP])
def test_without_locks_nothing_is_refused(tmp_path, monkeypatch, reason):
    def flock(descriptor, how):
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(fcntl, "flock", flock)
    with alone(tmp_path / "made"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_said(tmp_path, monkeypatch):
    def mkdir(path, **how):
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")  # what /proc says

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with pytest.raises(StorageError, match=r"cannot write in '.*made': No such file"), alone(tmp_path / "made"):
        pass


def test_what_is_no_folder_is_said(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StorageError, match="it is a file, or lies below one"), alone(path):
            pass


def test_a_folder_that_vanishes_while_it_is_made_is_made_again(tmp_path, monkeypatch):
    right, refused = type(tmp_path).mkdir, []

    def late(self, *args, **kwargs):
        if not refused:  # what mkdir says where another process removes the folder between its two looks
            refused.append(1)
            raise FileExistsError(17, "File exists")
        return right(self, *args, **kwargs)

    monkeypatch.setattr(type(tmp_path), "mkdir", late)
    with alone(tmp_path / "made"):
        assert refused
