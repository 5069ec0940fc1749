"""Attachments as AdapterHub folders: written, read, the same function; or refused with the reason."""

from __future__ import annotations

import pytest
import safetensors.torch
import torch

import unipetl
from unipetl.errors import InteropError
from unipetl.interop import adapterhub
from unipetl.testing import batch, build
from unipetl.testing.compare import close, outputs, scatter

OURS = {
    "houlsby": ("bert", "houlsby(rank=3)"),
    "pfeiffer": ("roberta", "pfeiffer(rank=4)"),
    "lora": ("gpt2", "lora(rank=3, alpha=5)"),
    "lora with two scales": ("bart", "lora(rank=2, scale=3) + lora(rank=2, at=ffn, scale=0.1)"),
    "learned": ("bert", "lora(rank=2, scale=learned)"),
    "prefix": ("distilbert", "prefix_tuning(length=3, mlp=None)"),
    "prefix by MLP": ("llama", "prefix_tuning(length=3, mlp=4)"),
    "mam": ("bart", "mam(length=3, rank=5)"),
    "head": ("distilbert", "houlsby(rank=3) + head_only"),
}


@pytest.mark.parametrize("name", OURS)
def test_export_then_import_is_the_same_function(name, tmp_path):
    family, method = OURS[name]
    heads = {"decoder_attention_heads": 4} if family == "bart" else {}
    model, again = build(family, dtype=torch.float64, **heads), build(family, dtype=torch.float64, **heads)
    scatter(unipetl.attach(model, method, name="mine"))
    wanted = outputs(model, batch(model))
    adapterhub.export(model, tmp_path)
    attachment = adapterhub.load(again, tmp_path)
    close(outputs(again, batch(model)), wanted, name, 1e-5 if family == "llama" else 1e-9)
    adapterhub.export(again, tmp_path / "again", name=attachment.name)
    first, second = (safetensors.torch.load_file(p / "adapter.safetensors") for p in (tmp_path, tmp_path / "again"))
    first = {key.replace(".mine.", ".default."): value for key, value in first.items()}
    assert set(first) == set(second)
    assert all(torch.equal(value, second[key]) for key, value in first.items())


def test_a_head_that_was_there_before_is_not_taken_for_this_adapters(tmp_path):
    model, again = build("distilbert"), build("distilbert")
    unipetl.attach(model, "houlsby(rank=3)")
    adapterhub.export(model, tmp_path)
    assert (tmp_path / "head_config.json").is_file()
    unipetl.detach(model)
    unipetl.attach(model, "lora(rank=2)", train_head=False)
    adapterhub.export(model, tmp_path)
    assert not adapterhub.load(again, tmp_path).plan.trained


TOO_MUCH = {
    "prompt": ("llama", "prompt_tuning(length=3)", "embeddings' norm"),
    "ungated": (
        "bert",
        "modifications: [{representation: attention.heads, form: {head_attention: {length: 3}}}]",
        "softmax",
    ),
    "inside the FFN": ("bert", "modifications: [{representation: ffn.up, form: {bottleneck: {rank: 3}}}]", "ffn.up"),
    "reads behind the norm": ("llama", "parallel_adapter(rank=3)", "reads the residual stream before the norm"),
    "two ranks": ("bert", "lora(rank=2) + lora(rank=3, at=ffn)", "one rank"),
    "bias": ("bert", "lora(rank=2) + bitfit", "no parameters of the model but its head"),
    "nothing else": ("bert", "bitfit", "no parameters of the model but its head"),
    "one layer of query": (
        "bert",
        "modifications: [{representation: {name: attention.query, layers: [0]}, form: {low_rank: {rank: 2}}}, "
        "{representation: attention.value, form: {low_rank: {rank: 2}}}]",
        "exactly these places",
    ),
    "prefix of T5": ("t5", "prefix_tuning(length=3)", "relative position bias"),
}


@pytest.mark.parametrize("name", TOO_MUCH)
def test_what_the_format_cannot_say_is_refused_with_the_reason(name, tmp_path):
    family, text, words = TOO_MUCH[name]
    method = unipetl.Method.from_yaml(text) if text.startswith("modifications") else text
    model = build(family)
    unipetl.attach(model, method)
    with pytest.raises(InteropError, match=words):
        adapterhub.export(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()
