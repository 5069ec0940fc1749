"""unipetl fold: a run as a plain checkpoint."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import BertForSequenceClassification

from cli.calling import call, data, refusal
from cli.tiny_task import TINY, Words, collate
from unipetl.experiment import use

pytestmark = pytest.mark.usefixtures("tiny")


def test_a_run_becomes_a_checkpoint_with_its_tokenizer(trained, tmp_path):
    text = call("fold", trained / "seed-0", "-o", tmp_path / "plain").stdout
    assert "attention.query" in text
    assert "trained in place" in text
    assert (tmp_path / "plain" / "words.txt").is_file()
    model = BertForSequenceClassification.from_pretrained(tmp_path / "plain").eval()
    rows = data("predict", trained / "seed-0", "w3 w4", "w5")
    for row in rows:
        with torch.no_grad():
            chances = model(**collate([{"input_ids": Words().encode(row["input"])}])).logits.softmax(-1)
        assert float(chances.max()) == pytest.approx(row["probability"], abs=1e-5)


def test_json(trained, tmp_path):
    found = data("fold", trained / "seed-1", "-o", tmp_path / "plain", "--examples", 3)
    assert found["folding"]["plain"] is True
    assert found["difference"] <= found["tolerance"] * found["scale"]
    assert json.loads((tmp_path / "plain" / "folding.json").read_text())["folding"] == found["folding"]


def test_what_does_not_fold_is_refused_with_the_reason(tmp_path):
    settings = ("--set", "training.max_steps=1", "--seed", 0)
    call("train", "-t", TINY.name, "-x", "prefix_tuning(length=2, mlp=None)", "-o", tmp_path / "run", *settings)
    message = refusal("fold", tmp_path / "run", "-o", tmp_path / "plain")
    assert "share a softmax" in message
    assert not (tmp_path / "plain").exists()


def test_a_refusal_fits_the_command_line(tmp_path):
    settings = ("--set", "training.max_steps=1", "--seed", 0)
    call("train", "-t", TINY.name, "-x", "lora(rank=2) + prefix_tuning(length=2, mlp=None)", "-o", tmp_path, *settings)
    message = refusal("fold", tmp_path, "-o", tmp_path / "plain", "--dequantize")
    assert "share a softmax" in message
    assert "partial" not in message, "a plain checkpoint is whole"


@pytest.mark.parametrize("given", [(), ("--dequantize",)])
def test_dequantize_reaches_the_folding(given, trained, tmp_path, monkeypatch):
    real, seen = use.write_checkpoint, []
    monkeypatch.setattr(use, "write_checkpoint", lambda *a, **k: seen.append(k["dequantize"]) or real(*a, **k))
    call("fold", trained / "seed-0", "-o", tmp_path / "plain", *given)
    assert seen == [bool(given)]


def test_wrong_uses_are_refused(trained, tmp_path):
    assert "seed-0, seed-1" in refusal("fold", trained, "-o", tmp_path / "plain")
    assert "is no run" in refusal("fold", tmp_path, "-o", tmp_path / "plain")
    message = " ".join(refusal("fold", trained / "seed-0" / "adapter", "-o", tmp_path / "plain").split())
    assert "is a saved attachment without its run" in message
    assert "write_checkpoint" in message
    assert "a folder of its own" in refusal("fold", trained / "seed-0", "-o", trained)
    assert "computes something else" in refusal(
        "fold", trained / "seed-0", "-o", tmp_path / "plain", "--tolerance", 1e-12
    )
    assert not (tmp_path / "plain").exists()
