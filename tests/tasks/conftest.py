from __future__ import annotations

import pytest

from tasks.tiny_text import SAVE


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """A folder with a tiny model and its tokenizer for each of bert, bart and gpt2."""
    return {name: save(tmp_path_factory.mktemp(name)) for name, save in SAVE.items()}
