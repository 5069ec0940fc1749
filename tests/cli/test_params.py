from __future__ import annotations

import pytest

from cli.calling import call, data, refusal
from unipetl import catalogue

MAM = "mam(length=16, rank=16)"


def test_one_method_on_roberta_base():
    text = call("params", "-m", "roberta-base", "-x", MAM).stdout
    assert "RobertaModel: 15,695,840 of 124,055,040 parameters trained (12.652 %)." in text
    assert "By the paper's rule: 589,824 (0.475 %)." in text


def test_the_same_as_json():
    found = data("params", "-m", "roberta-base", "-x", MAM)
    assert found["base_parameters"] == 124_055_040
    (row,) = found["methods"]
    assert row["notation"] == MAM
    assert row["paper_parameters"] == 589_824


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("prefix_tuning(length=200)", 14_745_600),
        ("adapter(rank=512)", 25_165_824),
        ("lora(rank=102, at=ffn)", 25_067_520),
        ("mam(length=30, rank=512)", 27_377_664),
        ("bitfit", 333_824),
    ],
)
def test_the_papers_counts_on_bart_large(text, count):
    (row,) = data("params", "--model", "facebook/bart-large", "--method", text)["methods"]
    assert row["paper_parameters"] == count
    assert row["base_parameters"] == 406_291_456


def test_methods_are_compared_in_the_order_given():
    text = call("params", "-m", "roberta-base", "-x", "lora", "-x", "bitfit").stdout
    assert "paper's count" in text
    assert text.index("lora") < text.index("bitfit")


def test_the_whole_catalogue_says_why_a_method_is_not_for_the_model():
    found = data("params", "-m", "whisper-tiny")
    assert [row["notation"] for row in found["methods"]] == list(catalogue.names())
    refused = {row["notation"]: row["refused"] for row in found["methods"] if "refused" in row}
    assert "encoder reads no tokens" in refused["prompt_tuning"]
    assert "prompt_tuning: modified representation" in call("params", "-m", "whisper-tiny").stdout


def test_a_task_head_counts_with_its_class():
    args = ("params", "-m", "roberta-base", "-x", "lora", "--class", "RobertaForSequenceClassification")
    (with_head,) = data(*args)["methods"]
    (without,) = data(*args, "--no-train-head")["methods"]
    assert with_head["parameters"] - without["parameters"] == 592_130
    assert with_head["paper_parameters"] == without["paper_parameters"]


def test_a_local_folder_without_weights(tmp_path):
    from transformers import GPT2Config

    GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=50, architectures=["GPT2LMHeadModel"]).save_pretrained(
        tmp_path
    )
    assert data("params", "-m", tmp_path, "-x", "lora(rank=2)")["model_class"] == "GPT2LMHeadModel"


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (["-m", "roberta-bas"], ["roberta-bas", "Did you mean 'roberta-base'", "What works without a network"]),
        (["-m", "./nowhere"], ["no such folder"]),
        (["-m", "roberta-base", "-x", "loro"], ["Did you mean 'lora'"]),
        (["-m", "roberta-base", "-x", "lora", "--class", "RobertaForSequence"], ["model class", "Did you mean"]),
        (["-m", "roberta-base", "-x", "lora", "--class", "BertModel"], ["Roberta model class"]),
        (["-m", "whisper-tiny", "-x", "prompt_tuning"], ["encoder reads no tokens"]),
    ],
)
def test_bad_input_is_refused_with_what_would_work(args, parts):
    message = refusal("params", *args)
    assert [part for part in parts if part not in message] == []


@pytest.mark.parametrize("content", [b"", b"\x00\x01\xff", b"[]", b"{}", b'{"model_type": "nonsense"}'])
def test_a_bad_config_is_refused(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    assert "config.json" in refusal("params", "-m", tmp_path, "-x", "lora")


def test_an_empty_folder_is_no_model(tmp_path):
    assert "expected a folder with a config.json" in refusal("params", "-m", tmp_path, "-x", "lora")


def test_a_model_is_required():
    assert "--model" in refusal("params", "-x", "lora", code=2)
