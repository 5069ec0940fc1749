"""unipetl serve: what it refuses before anything listens."""

from __future__ import annotations

import importlib.util
import socket
import sys

import pytest

from cli.calling import refusal

pytestmark = pytest.mark.usefixtures("tiny")


def test_wrong_uses_are_refused(trained, tmp_path):
    assert "name runs" in refusal("serve", code=2)
    assert "is no run" in refusal("serve", tmp_path, "--port", 0)
    assert "no folder" in refusal("serve", trained, "--allow-load", tmp_path / "none")
    assert "only 3 can wait" in refusal("serve", trained, "--max-queue", 3)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text((trained / "seed-0" / "recipe.yaml").read_text())
    assert "is not finished" in refusal("serve", tmp_path / "run", "--port", 0)
    twice = refusal("serve", f"a={trained / 'seed-0'}", f"a={trained / 'seed-1'}", "--port", 0)
    assert "two attachments are called 'a'" in twice
    assert "device 'nothing' cannot be used" in refusal("serve", trained, "--device", "nothing")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert "cannot listen on 127.0.0.1" in refusal("serve", trained, "--port", taken.getsockname()[1])


def test_missing_packages_are_named_with_the_command(trained, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("unipetl.serving")]:
        monkeypatch.delitem(sys.modules, name)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "uvicorn" else find(name))
    message = refusal("serve", trained)
    assert "uvicorn is needed" in message
    assert 'pip install "unipetl[serve]"' in message
