from __future__ import annotations

import pytest

from serving.tiny_runs import engine_of, make_classifiers, make_writers


@pytest.fixture(scope="session")
def classifiers(tmp_path_factory):
    """Directories of runs of one BERT, by name."""
    return make_classifiers(tmp_path_factory.mktemp("classifiers"))


@pytest.fixture(scope="session")
def writers(tmp_path_factory):
    """Directories of runs of one BART, by name."""
    return make_writers(tmp_path_factory.mktemp("writers"), "bart")


@pytest.fixture(scope="session")
def causal(tmp_path_factory):
    """Directories of runs of one GPT-2, by name."""
    return make_writers(tmp_path_factory.mktemp("causal"), "gpt2")


@pytest.fixture(scope="session")
def many(classifiers):
    """An engine with every classifier, and what it serves."""
    return engine_of(classifiers)


@pytest.fixture(scope="session")
def writing(writers):
    """An engine with every writer, and what it serves."""
    return engine_of(writers)
