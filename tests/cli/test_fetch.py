from __future__ import annotations

import pytest

from cli.calling import call, data, refusal
from unipetl.errors import DownloadError
from unipetl.tasks import embedded
from unipetl.tasks.packages import PACKAGES

NAMES = [one.name for one in PACKAGES]


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("UNIPETL_CACHE", str(tmp_path / "cache"))


def test_status_fetches_nothing(tmp_path):
    found = data("fetch", "--status")
    assert [one["package"] for one in found["packages"]] == NAMES
    assert {one["state"] for one in found["packages"]} == {"absent"}
    assert found["cache"] == str(tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
    text = call("fetch", "--status").stdout
    assert [name for name in NAMES if name not in text] == []


def test_all_or_the_named_are_fetched(monkeypatch):
    asked = []
    monkeypatch.setattr(embedded, "fetch", lambda names, *, progress: asked.append((names, progress)))
    call("fetch")
    assert [one["package"] for one in data("fetch", NAMES[0])["packages"]] == [NAMES[0]]
    assert asked == [(None, True), ([NAMES[0]], False)]


def test_unknown_packages_are_refused():
    assert "unknown" in refusal("fetch", "nonsense")
    assert "unknown" in refusal("fetch", "nonsense", "--status")


def test_what_cannot_be_fetched_is_an_error(monkeypatch):
    def fetch(names, *, progress):
        raise DownloadError("there is no network")

    monkeypatch.setattr(embedded, "fetch", fetch)
    assert refusal("fetch") == "error: there is no network\n"
