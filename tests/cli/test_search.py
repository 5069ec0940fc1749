"""`unipetl search` says what was found and how to go on, and refuses what is no search."""

from __future__ import annotations

import sys

import pytest
import yaml

from cli.calling import call, data, refusal
from search.instant import instantly

pytest.importorskip("optuna")

QUICK = ("--set", "training.max_steps=4", "--set", "training.use_cpu=true", "--set", "pruner=none")


@pytest.fixture
def quick(monkeypatch, tiny):
    return instantly(monkeypatch)


def test_a_search_from_options(quick, tmp_path):
    said = call("search", "-t", "tiny", "-b", "10%", "-n", 3, "-o", tmp_path / "out", *QUICK)
    assert said.stdout.startswith("tiny: 3 points of at most ")
    assert "3 complete" in said.stdout
    assert "Too few points to say which axes matter." in said.stdout
    assert "[3/3] finished: point " in said.stderr
    assert f"unipetl compare {tmp_path / 'out' / 'best.yaml'}" in said.stderr
    best = said.stdout.partition("The best, point ")[2].partition(":\n")[2].partition("\nToo few")[0]
    assert yaml.safe_load(best)["modifications"]
    assert (tmp_path / "out" / "report.html").is_file()
    found = data("search", tmp_path / "out", "--trials", 4)
    assert (len(found["tried"]), found["path"]) == (4, str(tmp_path / "out"))
    assert len(quick.made) == 4


def test_a_dry_run_shows_the_choices(quick, tmp_path):
    text = call("search", "-t", "tiny", "-b", 400, "--set", "space.form=[low_rank]", "--dry-run").stdout
    assert text.startswith("at most 400 of ")
    assert "attention.heads" in text
    assert "bottleneck" not in text
    found = data("search", "-t", "tiny", "-b", 400, "--dry-run")
    assert {"representation": "ffn", "form": "low_rank", "insertion": "parallel", "composition": "add"} in found[
        "changes"
    ]
    assert quick.made == []


def test_an_interruption_says_how_to_go_on(tmp_path, monkeypatch, tiny):
    def interrupt(recipe):
        raise KeyboardInterrupt

    instantly(monkeypatch, before=interrupt)
    message = refusal("search", "-t", "tiny", "-b", "10%", "-o", tmp_path / "out", *QUICK, code=130)
    assert message == f"interrupted. `unipetl search {tmp_path / 'out'}` goes on.\n"


def test_wrong_searches_are_refused_and_leave_nothing(quick, tmp_path):
    out = tmp_path / "out"
    assert "--task" in refusal("search", "-o", out, code=2)
    assert "expected a share such as 0.5%" in refusal("search", "-t", "tiny", "-b", "much", "-o", out)
    assert "Did you mean 'tiny'" in refusal("search", "-t", "tinny", "-b", "1%", "-o", out)
    assert "no search.yaml" in refusal("search", tmp_path)
    assert "cannot read" in refusal("search", tmp_path / "nowhere.yaml")
    assert "nothing in the space makes sense" in refusal("search", "-t", "tiny", "-b", 1, "-o", out)
    assert not out.exists()


def test_without_optuna_the_message_says_how_to_get_it(tmp_path, monkeypatch, tiny):
    monkeypatch.setitem(sys.modules, "optuna", None)
    message = refusal("search", "-t", "tiny", "-b", "10%", "-o", tmp_path / "out")
    assert "pip install 'unipetl[search]'" in message
