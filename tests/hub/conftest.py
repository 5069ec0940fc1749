"""A hub on this machine, which huggingface_hub takes for the real one."""

from __future__ import annotations

import pytest

from hub.fake_hub import FakeHub, taken_for_real


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with FakeHub() as fake:
        taken_for_real(fake, monkeypatch, tmp_path / "cache")
        yield fake
