from __future__ import annotations

import json

import pytest
import torch
from transformers import RobertaConfig, RobertaForSequenceClassification

import unipetl
from cli.calling import call, data, refusal


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    config = RobertaConfig(
        vocab_size=32, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=24, pad_token_id=1,
    )  # fmt: skip
    torch.manual_seed(0)
    model = RobertaForSequenceClassification(config)
    unipetl.attach(model, "mam(length=2, rank=2, mlp=4)", name="mine", seed=7)
    return unipetl.save(model, tmp_path_factory.mktemp("saved") / "adapter")


@pytest.fixture
def copied(saved, tmp_path):
    for file in saved.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def test_an_attachment_is_described(saved):
    text = call("inspect", saved).stdout
    for part in (
        "'mine'",
        "RobertaForSequenceClassification",
        "verified",
        "\nseed         7\n",
        "softmax(x W_q P_kᵀ) P_v",
        "float32",
    ):
        assert part in text
    assert "encoder.0.ffn/parallel_bottleneck/down " in text


def test_the_same_as_json(saved):
    found = data("inspect", saved)
    assert found["kind"] == "attachment"
    assert found["verified"] is True
    assert sum(one["size"] for one in found["tensors"]) == found["parameters"]


@pytest.mark.parametrize("name", ["unipetl.json", "unipetl.safetensors"])
def test_a_file_of_it_stands_for_the_folder(saved, name):
    assert data("inspect", saved / name) == data("inspect", saved)


def test_names_from_files_cannot_steer_the_terminal(copied):
    described = json.loads((copied / "unipetl.json").read_text(encoding="utf-8"))
    described["name"] = "\x1b[2Jgone"
    described["versions"] = "none"
    described["base"]["parameters"] = "many"
    (copied / "unipetl.json").write_text(json.dumps(described), encoding="utf-8")
    assert "\x1b" not in call("inspect", copied).stdout


def test_damage_is_an_error(copied):
    path = copied / "unipetl.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + b"\x00\x00\x80\x3f")
    assert "checksum" in refusal("inspect", copied)


@pytest.mark.parametrize("content", [b"", b"\x80\xff\x00", b"[]", b"{", b"{}"])
def test_bad_descriptions_are_errors(copied, content):
    (copied / "unipetl.json").write_bytes(content)
    assert "unipetl.json" in refusal("inspect", copied)


@pytest.mark.parametrize("content", [b"", b"\x80\xff\x00", b"\x80\x04\x95K\x00."])
def test_bad_tensor_files_are_errors(copied, content):
    (copied / "unipetl.safetensors").write_bytes(content)
    assert "unipetl.safetensors" in refusal("inspect", copied)


def test_an_incomplete_save_is_an_error(copied):
    (copied / "unipetl.safetensors").unlink()
    assert "incomplete" in refusal("inspect", copied)


def test_what_is_not_ours_is_an_error(tmp_path):
    assert "holds nothing of unipetl's" in refusal("inspect", tmp_path)
    assert "does not exist" in refusal("inspect", tmp_path / "nowhere")
    (tmp_path / "adapter_config.json").write_text("{}")
    assert "PEFT" in refusal("inspect", tmp_path)
    assert "is a file" in refusal("inspect", tmp_path / "adapter_config.json")
