from __future__ import annotations

import pytest

from cli.calling import call, data
from unipetl.cli import doctor


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("UNIPETL_CACHE", str(tmp_path / "cache"))


def test_this_machine_is_well():
    text = call("doctor").stdout
    assert "Everything needed is here." in text
    assert "bit for bit as before" in text


def test_absent_data_is_a_note_and_no_fault():
    found = data("doctor")
    assert found["ok"] is True
    note = next(one for one in found["findings"] if one["what"] == "embedded data")
    assert note["state"] == "note"
    assert "unipetl fetch" in note["advice"]


def test_a_fault_is_exit_code_one(monkeypatch):
    def broken():
        raise RuntimeError("planted")
        yield

    broken.__name__ = "_self_test"
    monkeypatch.setattr(doctor, "_self_test", broken)
    found = data("doctor", code=1)
    assert found["ok"] is False
    assert [one["what"] for one in found["findings"] if one["state"] == "wrong"] == ["self test"]
    assert "1 of " in call("doctor", code=1).stdout


def test_a_version_out_of_range_is_a_fault(monkeypatch):
    import importlib.metadata

    right = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "4.57.0" if name == "transformers" else right(name))
    found = data("doctor", code=1)
    fault = next(one for one in found["findings"] if one["state"] == "wrong")
    assert fault["what"] == "transformers"
    assert "<6" in fault["advice"]


def test_an_unreachable_hub_is_a_fault_only_when_asked():
    found = data("doctor", "--network", code=1)  # the tests run in offline mode
    assert [one["what"] for one in found["findings"] if one["state"] == "wrong"] == ["network"]
