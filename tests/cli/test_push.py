"""unipetl push: a run on the hub, with a card made from it."""

from __future__ import annotations

import json
import shutil

import pytest
import yaml

import unipetl
from cli.calling import call, data, refusal
from cli.conftest import QUICK
from cli.tiny_task import TINY
from hub.fake_hub import FakeHub, taken_for_real
from unipetl.testing import build

pytestmark = pytest.mark.usefixtures("tiny")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with FakeHub() as fake:
        taken_for_real(fake, monkeypatch, tmp_path / "cache")
        yield fake


def test_a_run_is_pushed_and_loads_again(hub, trained, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    text = call("push", trained / "seed-0", "user/tiny", "--private").stdout
    assert f"{hub.address}/user/tiny/commit/" in text
    assert hub.private == {"user/tiny"}
    assert set(hub.files("user/tiny")) == {".gitattributes", "README.md", "unipetl.json", "unipetl.safetensors"}
    model = TINY.prepare(seed=0).model
    assert unipetl.load(model, "user/tiny").plan.parameters > 0


def test_a_dry_run_writes_the_card_and_asks_nobody(hub, trained, tmp_path):
    found = data("push", trained / "seed-1", "user/tiny", "--dry-run", tmp_path / "card")
    assert found == {"repository": "user/tiny", "folder": str(tmp_path / "card"), "address": None}
    assert hub.asked == []
    assert {one.name for one in (tmp_path / "card").iterdir()} == {"README.md", "unipetl.json", "unipetl.safetensors"}
    card = (tmp_path / "card" / "README.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["library_name"] == "unipetl"
    assert "`lora(rank=2)`" in card
    assert "| seed | accuracy |" in card.replace(" eval_loss |", "")
    rows = [line for line in card.splitlines() if line.startswith(("| 0 |", "| 1 |", "| mean ± std |"))]
    assert [row[2:5] for row in rows] == ["1 |", "0 |", "mea"]
    assert "The files here are those of seed 1." in card
    assert 'model = get_task("tiny").prepare(seed=1).model' in card
    assert 'unipetl.load(model, "user/tiny")' in card
    assert "time" not in card


def test_a_saved_attachment_is_pushed_too(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    model = build("bert")
    unipetl.attach(model, "bitfit")
    unipetl.save(model, tmp_path / "mine")
    call("push", tmp_path / "mine", "user/mine", "--base-model", "org/base", "--revision", "next")
    assert "base_model: org/base" in hub.files("user/mine", "next")["README.md"].decode()


def test_wrong_uses_are_refused(hub, trained, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "seed-0, seed-1" in refusal("push", trained, "user/tiny")
    assert "neither a run" in refusal("push", tmp_path, "user/tiny")
    assert "may write there" in refusal("push", trained / "seed-0", "user/tiny")
    assert "is no name of a repository" in refusal("push", trained / "seed-0", "user/ti--ny")
    assert "of their own" in refusal("push", trained / "seed-0", "user/tiny", "--dry-run", trained)


def card_of(run, folder):
    call("push", run, "user/tiny", "--dry-run", folder)
    return (folder / "README.md").read_text()


def test_a_base_in_a_relative_folder_is_no_name_on_the_hub(tmp_path, monkeypatch):
    (tmp_path / "models" / "base").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    for place, name in enumerate(("models/base", "some/where")):
        monkeypatch.chdir(tmp_path)
        run = tmp_path / "runs" / str(place) / "seed-0"
        call("train", "-t", "tiny", "-x", "lora(rank=2)", "-m", name, "--seed", 0, "-o", run.parent, *QUICK)
        monkeypatch.chdir(tmp_path / "elsewhere")
        card = card_of(run, tmp_path / f"card-{place}")
        assert ("base_model" in card, name in card) == ((False, False) if place == 0 else (True, True))
        environment = json.loads((run / "environment.json").read_text())
        assert environment.pop("base_is_folder") is (place == 0)
        (run / "environment.json").write_text(json.dumps(environment))  # as an older version wrote it
        assert ("base_model" in card_of(run, tmp_path / f"older-{place}")) is (place == 1)
    run = tmp_path / "runs" / "0" / "seed-0"
    call("push", run, "user/tiny", "--dry-run", tmp_path / "said", "--base-model", "org/base")
    assert "base_model: org/base" in (tmp_path / "said" / "README.md").read_text()


@pytest.mark.parametrize("crashed", ["before the tensors", "before the description", "the first time"])
def test_what_an_interrupted_save_has_left_is_refused(trained, tmp_path, hub, crashed):
    run = shutil.copytree(trained / "seed-0", tmp_path / "seed-0")
    description, following = run / "adapter" / "unipetl.json", run / "adapter" / ".unipetl.json.next"
    shutil.copyfile(description, following)
    if crashed == "before the description":
        description.write_text(description.read_text().replace('"sha256": "', '"sha256": "0'))
    elif crashed == "the first time":
        description.unlink()
    for path in (run, run / "adapter"):
        message = refusal("push", path, "user/tiny", "--dry-run", tmp_path / "card")
        assert "the last save there was interrupted" in message
        assert "save it again" in message
        assert not (tmp_path / "card").exists()
    assert hub.asked == []
