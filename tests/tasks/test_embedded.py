"""Fetching with the real pip, from a folder instead of a network: verified, atomic, repeatable, with clear refusals."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest

from tasks.archives import FILES, KEPT, described, tarball, wheel
from unipetl.errors import DownloadError, PetlError, TaskError
from unipetl.tasks import embedded, packages


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty cache, and a pip that knows no index and no settings but a folder `offered`."""
    monkeypatch.setenv("UNIPETL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "offered"))
    return tmp_path


def offer(monkeypatch, *known):
    for module in (packages, embedded):
        monkeypatch.setattr(module, "PACKAGES", known)


def stand_in(monkeypatch, archive=None, code=0, stderr=""):
    """Replace pip by a command that copies `archive` to where pip would have put it; return the list of its calls."""
    calls = []

    def run(command, **_):
        calls.append(command)
        folder = Path(command[command.index("-d") + 1])
        if archive is not None:
            folder.mkdir()
            shutil.copy(archive, folder)
        return subprocess.CompletedProcess(command, code, "", stderr)

    monkeypatch.setattr(embedded.subprocess, "run", run)
    return calls


def test_real_pip_fetches_and_keeps_only_what_is_named(home, monkeypatch):
    offer(monkeypatch, described(wheel(home / "offered", {**FILES, "tiny/__init__.py": b"raise SystemExit"})))
    assert embedded.fetch() == home / "cache"
    folder = embedded.location("tiny")
    assert {path.name for path in folder.iterdir()} == {"words.json", "LICENSE.txt", "manifest.json"}
    assert json.loads((folder / "words.json").read_text()) == {"a": 1}
    assert [path.name for path in (home / "cache").iterdir()] == ["tiny-1.0"]


def test_real_pip_refuses_another_archive_before_anything_is_unpacked(home, monkeypatch):
    package = described(wheel(home / "offered"))
    wheel(home / "offered", {**FILES, "tiny/data/words.json": b'{"a": 2}'})
    offer(monkeypatch, package)
    with pytest.raises(DownloadError, match=f"tiny 1.0 .*is not the one that was checked .SHA-256 {package.sha256}"):
        embedded.fetch()
    assert list((home / "cache").iterdir()) == []


def test_real_pip_without_an_index_says_what_would_work(home, monkeypatch):
    offer(monkeypatch, described(wheel(home / "elsewhere")))
    with pytest.raises(
        DownloadError,
        match=r"cannot fetch tiny 1.0 \(for a word\).*network.*`unipetl fetch`.*UNIPETL_CACHE.*No matching",
    ):
        embedded.location("tiny")


def test_our_own_check_does_not_rely_on_pip(home, monkeypatch):
    offer(monkeypatch, described(wheel(home / "good")))
    stand_in(monkeypatch, wheel(home / "bad", {"evil": b"!"}))
    with pytest.raises(DownloadError, match="is not the one that was checked"):
        embedded.fetch()


def test_pip_is_told_to_verify_and_to_take_no_dependencies(home, monkeypatch):
    archive = wheel(home / "offered")
    offer(monkeypatch, described(archive))
    (command,) = [stand_in(monkeypatch, archive), embedded.fetch()][0]
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--require-hashes", "--no-deps", "--only-binary"} <= set(command)


def test_a_source_distribution_is_asked_for_as_such(home, monkeypatch):
    archive = tarball(home / "tiny-1.0.tar.gz", FILES)
    offer(monkeypatch, described(archive, form="source"))
    (command,) = [stand_in(monkeypatch, archive), embedded.fetch()][0]
    assert command[command.index("--no-binary") + 1] == "tiny"
    assert (embedded.location("tiny") / "words.json").read_bytes() == FILES["tiny/data/words.json"]


def test_what_is_there_is_not_fetched_again(home, monkeypatch):
    archive = wheel(home / "offered")
    offer(monkeypatch, described(archive))
    calls = stand_in(monkeypatch, archive)
    for _ in range(2):
        embedded.fetch()
        embedded.location("tiny")
    assert len(calls) == 1


def test_a_copied_cache_works_without_pip(home, monkeypatch):
    archive = wheel(home / "offered")
    offer(monkeypatch, described(archive))
    stand_in(monkeypatch, archive)
    shutil.copytree(embedded.fetch(), home / "copy")
    monkeypatch.setenv("UNIPETL_CACHE", str(home / "copy"))
    stand_in(monkeypatch, code=1)
    assert embedded.location("tiny") == home / "copy" / "tiny-1.0"


DAMAGE = {
    "changed": lambda folder: (folder / "words.json").write_bytes(b'{"a": 3}'),
    "lost": lambda folder: (folder / "words.json").unlink(),
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "odd manifest": lambda folder: (folder / "manifest.json").write_text("[]"),
    "other version": lambda folder: (folder / "manifest.json").write_text('{"archive": "0", "files": {}}'),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_package_is_noticed_and_fetched_anew(home, monkeypatch, damage):
    archive = wheel(home / "offered")
    offer(monkeypatch, described(archive))
    calls = stand_in(monkeypatch, archive)
    folder = embedded.location("tiny")
    assert embedded.status()[0]["state"] == "ready"
    DAMAGE[damage](folder)
    assert embedded.status()[0]["state"] == "damaged"
    assert (embedded.location("tiny") / "words.json").read_bytes() == FILES["tiny/data/words.json"]
    assert len(calls) == 2
    assert [path.name for path in (home / "cache").iterdir()] == ["tiny-1.0"]


@pytest.mark.parametrize(
    ("stderr", "advice"),
    [
        ("/usr/bin/python: No module named pip", "ensurepip"),
        ("ERROR: [Errno 28] No space left on device", "disk is full"),
        ("ERROR: No matching distribution found for tiny==1.0", "Is there a network.*No matching distribution"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES", "not the one that was checked"),
        ("", "pip said: nothing"),
    ],
)
def test_each_way_pip_fails_has_its_advice(home, monkeypatch, stderr, advice):
    offer(monkeypatch, described(wheel(home / "offered")))
    stand_in(monkeypatch, code=1, stderr=stderr)
    with pytest.raises(DownloadError, match=f"cannot fetch tiny 1.0.*{advice}"):
        embedded.fetch()
    assert embedded.status()[0]["state"] == "absent"


def test_a_pip_that_hangs_is_given_up(home, monkeypatch):
    offer(monkeypatch, described(wheel(home / "offered")))

    def run(command, timeout, **_):
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(embedded.subprocess, "run", run)
    with pytest.raises(DownloadError, match="more than 900 s"):
        embedded.fetch()


def test_a_pip_that_leaves_nothing_is_noticed(home, monkeypatch):
    offer(monkeypatch, described(wheel(home / "offered")))
    stand_in(monkeypatch)
    with pytest.raises(DownloadError, match="0 files where one was expected"):
        embedded.fetch()


def test_a_full_disk_is_seen_before_the_download(home, monkeypatch):
    offer(monkeypatch, described(wheel(home / "offered"), download=40_000_000, kept=20_000_000))
    calls = stand_in(monkeypatch)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(embedded.shutil, "disk_usage", lambda _: usage(1, 1, 5_000_000))
    with pytest.raises(DownloadError, match=r"needs 95\.4 MiB in .* and 4\.8 MiB are free"):
        embedded.fetch()
    assert calls == []


def test_a_disk_that_fills_up_on_the_way_leaves_nothing(home, monkeypatch):
    archive = wheel(home / "offered")
    offer(monkeypatch, described(archive))
    stand_in(monkeypatch, archive)

    def write_bytes(self, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    with pytest.raises(DownloadError, match=r"cannot keep tiny 1.0 in .*No space left on device"):
        embedded.fetch()
    assert list((home / "cache").iterdir()) == []


def test_a_cache_that_cannot_be_made_is_named(home, monkeypatch):
    offer(monkeypatch, described(wheel(home / "offered")))
    (home / "file").write_text("")
    monkeypatch.setenv("UNIPETL_CACHE", str(home / "file" / "cache"))
    with pytest.raises(DownloadError, match="UNIPETL_CACHE to another folder"):
        embedded.fetch()


@pytest.mark.parametrize("name", ["../escaped", "/tmp/escaped", "..", "", "a/b", "manifest.json"])
def test_no_file_is_written_outside_its_folder(home, monkeypatch, name):
    archive = wheel(home / "offered", {"tiny/words": b"!"})
    offer(monkeypatch, described(archive, members={"tiny/words": name}))
    stand_in(monkeypatch, archive)
    with pytest.raises(DownloadError, match="not a plain file name"):
        embedded.fetch()
    assert not (home / "cache" / "escaped").exists()
    assert list((home / "cache").iterdir()) == []


def test_members_that_climb_out_are_never_touched(home, monkeypatch):
    archive = wheel(home / "offered", {**FILES, "../../escaped": b"!"})
    offer(monkeypatch, described(archive))
    stand_in(monkeypatch, archive)
    embedded.fetch()
    assert list(home.rglob("*escaped*")) == []


def linked_wheel(path):
    with zipfile.ZipFile(path, "w") as zipped:
        entry = zipfile.ZipInfo("tiny/words")
        entry.external_attr = 0o120777 << 16
        zipped.writestr(entry, "/etc/passwd")
    return path


def linked_tarball(path):
    with tarfile.open(path, "w:gz") as tar:
        entry = tarfile.TarInfo("tiny/words")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(entry, io.BytesIO())
    return path


@pytest.mark.parametrize(("make", "name"), [(linked_wheel, "tiny.whl"), (linked_tarball, "tiny.tar.gz")])
def test_links_are_refused(home, monkeypatch, make, name):
    archive = make(home / name)
    offer(monkeypatch, described(archive, members={"tiny/words": "words"}))
    stand_in(monkeypatch, archive)
    with pytest.raises(DownloadError, match=r"not a regular file.*Nothing was kept"):
        embedded.fetch()


@pytest.mark.parametrize("make", [wheel, lambda folder: tarball(folder / "tiny-1.0.tar.gz", FILES)])
def test_a_member_that_is_missing_is_named(home, monkeypatch, make):
    archive = make(home / "offered")
    offer(monkeypatch, described(archive, members={**KEPT, "tiny/data/more": "more"}))
    stand_in(monkeypatch, archive)
    with pytest.raises(DownloadError, match="cannot read 'tiny/data/more'"):
        embedded.fetch()
    assert list((home / "cache").iterdir()) == []


def test_an_archive_of_no_known_kind_is_refused(home, monkeypatch):
    archive = home / "tiny.bin"
    archive.write_bytes(b"neither")
    offer(monkeypatch, described(archive))
    stand_in(monkeypatch, archive)
    with pytest.raises(DownloadError, match="Nothing was kept"):
        embedded.fetch()


def test_another_process_that_was_first_is_no_fault(home, monkeypatch):
    archive = wheel(home / "offered")
    offer(monkeypatch, described(archive))
    calls = stand_in(monkeypatch, archive)
    pip = embedded.subprocess.run

    def slow_pip(command, **settings):
        monkeypatch.setattr(embedded.subprocess, "run", pip)
        embedded.fetch()  # what another process does meanwhile
        return pip(command, **settings)

    monkeypatch.setattr(embedded.subprocess, "run", slow_pip)
    assert (embedded.location("tiny") / "words.json").is_file()
    assert len(calls) == 2
    assert [path.name for path in (home / "cache").iterdir()] == ["tiny-1.0"]


def test_many_at_once_all_succeed(home, monkeypatch):
    archive = wheel(home / "offered")
    offer(monkeypatch, described(archive))
    stand_in(monkeypatch, archive)
    together, failures = threading.Barrier(8), []

    def work():
        together.wait()
        try:
            assert (embedded.location("tiny") / "words.json").is_file()
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert [path.name for path in (home / "cache").iterdir()] == ["tiny-1.0"]


def test_only_the_named_packages_are_fetched(home, monkeypatch):
    one, two = wheel(home / "offered"), wheel(home / "offered", name="other")
    offer(monkeypatch, described(one), described(two, name="other"))
    stand_in(monkeypatch, one)
    embedded.fetch(["tiny"])
    assert [row["state"] for row in embedded.status()] == ["ready", "absent"]


def test_an_unknown_package_is_named_with_its_nearest():
    with pytest.raises(TaskError, match=r"unknown embedded package 'misaka'. Did you mean 'misaki'\?"):
        embedded.location("misaka")
    assert issubclass(DownloadError, PetlError)


def test_nothing_is_shown_off_a_terminal(home, monkeypatch, capfd):
    archive = wheel(home / "offered")
    offer(monkeypatch, described(archive))
    stand_in(monkeypatch, archive)
    embedded.fetch()
    shown = capfd.readouterr()
    assert shown.out + shown.err == ""


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("UNIPETL_CACHE", str(tmp_path / "mine"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "general"))
    assert embedded.cache() == tmp_path / "mine"
    monkeypatch.delenv("UNIPETL_CACHE")
    assert embedded.cache() == tmp_path / "general" / "unipetl"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert embedded.cache() == tmp_path / ".cache" / "unipetl"


def test_every_pinned_package_is_whole():
    for one in packages.PACKAGES:
        assert len(one.sha256) == 64
        assert len(set(one.members.values())) == len(one.members)
        assert any("LICENSE" in name for name in one.members.values()), f"{one.name}: its licence goes with its data"
