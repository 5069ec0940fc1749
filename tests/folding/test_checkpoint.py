"""Folded checkpoints: from_pretrained reads them where there is no unipetl, and a wrong one never gets its name."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

import unipetl
from unipetl.errors import FoldError, StorageError
from unipetl.folding import checkpoint, write_checkpoint
from unipetl.testing import FAMILIES, batch, build
from unipetl.testing.compare import outputs, same, scatter
from unipetl.testing.laws import Snapshot

METHOD = "lora(rank=2, at=all) + parallel_adapter(rank=3, activation=model) + ia3"
ALONE = """
import sys
sys.modules["unipetl"] = None  # as where it is not installed
import safetensors.torch, torch, transformers
folder = sys.argv[1]
given = safetensors.torch.load_file(folder + "/call.safetensors")
wanted = given.pop("wanted")
model = getattr(transformers, sys.argv[2]).from_pretrained(folder + "/plain").eval()
with torch.no_grad():
    print(float((model(**given).logits - wanted).abs().max()))
"""


def attached(family, method=METHOD, **settings):
    model = build(family, **settings)
    scatter(unipetl.attach(model, method), size=0.1)
    return model


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_every_family_writes_a_checkpoint_that_reads_back(family, tmp_path):
    model = attached(family)
    before, wanted = Snapshot.of(model), outputs(model, batch(model))
    written = write_checkpoint(model, tmp_path / "plain", [batch(model)])
    assert written.difference <= 1e-4 * written.scale
    report = json.loads((tmp_path / "plain" / "folding.json").read_text())
    assert report["folding"]["plain"] is True
    assert list(tmp_path.iterdir()) == [tmp_path / "plain"]
    before.require_unchanged(model, "after writing a checkpoint")
    same(outputs(model, batch(model)), wanted, "the attached model after writing")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["roberta", "t5_gated", "gpt2", "llama"])
def test_a_process_without_unipetl_computes_the_same(name, tmp_path):
    import safetensors.torch

    model = attached(name)
    call = batch(model, labels=False)
    write_checkpoint(model, tmp_path / "plain", [call])
    safetensors.torch.save_file({**call, "wanted": outputs(model, call)}, tmp_path / "call.safetensors")
    command = [sys.executable, "-I", "-c", ALONE, str(tmp_path), type(model).__name__]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1e-4


def test_a_wider_ffn_is_in_the_config(tmp_path):
    write_checkpoint(attached("bart"), tmp_path / "plain", [batch(build("bart"))])
    config = json.loads((tmp_path / "plain" / "config.json").read_text())
    assert (config["encoder_ffn_dim"], config["decoder_ffn_dim"]) == (27, 23)


@pytest.mark.parametrize(
    ("method", "why"),
    [
        ("prefix_tuning(length=2, mlp=None)", "share a softmax"),
        ("parallel_adapter(rank=2, activation=tanh)", "keeps its activation"),
        ("houlsby(rank=2)", "makes it no linear map"),
    ],
)
def test_what_is_not_plain_is_refused_and_leaves_nothing(method, why, tmp_path):
    model = attached("bart", method)
    before = Snapshot.of(model)
    with pytest.raises(FoldError, match=why):
        write_checkpoint(model, tmp_path / "plain", [batch(model)])
    assert list(tmp_path.iterdir()) == []
    before.require_unchanged(model, "after a refusal")


def test_another_attachment_is_in_the_way(tmp_path):
    model = attached("bart", "lora(rank=2)")
    unipetl.attach(model, "ia3", name="other")
    with pytest.raises(FoldError, match="'other' is not folded; detach it first"):
        write_checkpoint(model, tmp_path / "plain", [batch(model)], names="default")


def test_a_planted_wrong_checkpoint_never_gets_its_name(tmp_path, monkeypatch):
    model = attached("bart", "lora(rank=2)")
    before = Snapshot.of(model)
    real = checkpoint._load

    def planted(model, folder):
        loaded = real(model, folder)
        with torch.no_grad():
            loaded.lm_head.weight.add_(0.01)
        return loaded

    monkeypatch.setattr(checkpoint, "_load", planted)
    with pytest.raises(FoldError, match="computes something else"):
        write_checkpoint(model, tmp_path / "plain", [batch(model)])
    assert list(tmp_path.iterdir()) == []
    before.require_unchanged(model, "after a checkpoint that was wrong")


def test_a_checkpoint_that_lacks_a_tensor_never_gets_its_name(tmp_path, monkeypatch):
    model = attached("bert", "lora(rank=2)")
    real = checkpoint._save

    def planted(model, folder, folding):
        state = {k: v for k, v in model.state_dict().items() if "layer.1.output.dense" not in k}
        model.save_pretrained(folder, state_dict=state)

    assert real is not planted
    monkeypatch.setattr(checkpoint, "_save", planted)
    with pytest.raises(FoldError, match="cannot be read back"):
        write_checkpoint(model, tmp_path / "plain", [batch(model)])
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_leaves_nothing(tmp_path, monkeypatch):
    model = attached("bert", "lora(rank=2)")
    before = Snapshot.of(model)

    def planted(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_checkpoint(model, tmp_path / "plain", [batch(model)], extras=planted)
    assert list(tmp_path.iterdir()) == []
    before.require_unchanged(model, "after an interruption")


def test_a_taken_folder_is_refused(tmp_path):
    model = attached("bert", "lora(rank=2)")
    (tmp_path / "mine").write_text("kept")
    for path in (tmp_path, tmp_path / "mine"):
        with pytest.raises(StorageError, match="a folder of its own"):
            write_checkpoint(model, path, [batch(model)])
    assert (tmp_path / "mine").read_text() == "kept"
    (tmp_path / "empty").mkdir()
    write_checkpoint(model, tmp_path / "empty", [batch(model)])
    with pytest.raises(FoldError, match="at least one call"):
        write_checkpoint(model, tmp_path / "other", [])
