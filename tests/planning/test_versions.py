"""Outside the range of transformers that pyproject.toml names, one sentence says so."""

from __future__ import annotations

import tomllib
from importlib import metadata
from pathlib import Path

import pytest

import unipetl
from unipetl.planning import versions
from unipetl.testing import build


@pytest.fixture(autouse=True)
def unchecked():
    versions.check_transformers.cache_clear()
    yield
    versions.check_transformers.cache_clear()


@pytest.mark.parametrize("version", ["4.57.1", "5.14.9", "6.0.0", "6.0.0rc1"])
def test_a_version_outside_the_range(monkeypatch, version):
    model = build("bert")
    monkeypatch.setattr(metadata, "version", lambda name: version)
    with pytest.raises(unipetl.errors.PlanError, match=f"transformers {version} is installed.*pip install"):
        unipetl.plan("lora", model)


@pytest.mark.parametrize("version", ["5.15.0", "5.99.3", "5.24.0.dev0"])
def test_a_version_inside_it(monkeypatch, version):
    monkeypatch.setattr(metadata, "version", lambda name: version)
    assert unipetl.plan("lora", build("bert")).parameters


def test_the_range_is_the_package_s():
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    wanted = f"transformers>={versions.OLDEST[0]}.{versions.OLDEST[1]},<{versions.TOO_NEW[0]}"
    assert wanted in tomllib.loads(text)["project"]["dependencies"]
