"""LoRA folders as engines that serve them read them (vLLM's rules), by a reader that knows nothing else.

Such an engine reads r, lora_alpha and target_modules, refuses DoRA, biases and whole modules, ignores patterns, and
takes ``base_model.model.<module>.lora_A.weight`` and ``lora_B.weight`` for every module.
"""

from __future__ import annotations

import json
import re

import pytest
import safetensors.torch
import torch

import unipetl
from unipetl.errors import InteropError
from unipetl.interop import peft
from unipetl.testing import batch, build
from unipetl.testing.compare import close, outputs, scatter

MIXED = "lora(rank=2, scale=0.7) + lora(rank=5, at=ffn, scale=3)"


def serve(model, folder):
    """Merge a folder into a model by the engine's rules."""
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["peft_type"] == "LORA"
    assert config["bias"] == "none"
    assert config["modules_to_save"] is None
    assert config["use_dora"] is False
    assert config["lora_bias"] is False
    scale = config["lora_alpha"] / (config["r"] ** 0.5 if config["use_rslora"] else config["r"])
    tensors = safetensors.torch.load_file(folder / "adapter_model.safetensors")
    names = {re.fullmatch(r"base_model\.model\.(.+)\.lora_[AB]\.weight", key).group(1) for key in tensors}
    assert all({name, name.rpartition(".")[2]} & set(config["target_modules"]) for name in names)
    with torch.no_grad():
        for name in names:
            down, up = (tensors[f"base_model.model.{name}.lora_{one}.weight"] for one in "AB")
            assert down.shape[0] == up.shape[1] <= config["r"]
            module = model.get_submodule(name)
            change = scale * up @ down
            module.weight += change.T if hasattr(module, "nf") else change
    return model


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2", "mistral"])
@pytest.mark.parametrize("method", ["lora(rank=4, alpha=8, at=all)", "lora(rank=3, scale=learned)", MIXED])
def test_an_engine_that_knows_no_patterns_serves_the_same(family, method, tmp_path):
    model = build(family, dtype=torch.float64)
    attachment = scatter(unipetl.attach(model, method, train_head=False))
    peft.export(model, tmp_path, uniform=True)
    served = serve(build(family, dtype=torch.float64), tmp_path)
    close(outputs(served, batch(model)), outputs(model, batch(model)), "as an engine serves it", 1e-6)
    attachment.detach()
    peft.load(model, tmp_path)  # and it is a PEFT folder like any other
    close(outputs(model, batch(model)), outputs(served, batch(model)), "read back", 1e-6)


def test_a_plain_lora_needs_no_option(tmp_path):
    model = build("llama", dtype=torch.float64)
    scatter(unipetl.attach(model, "lora(rank=4, alpha=8)"))
    peft.export(model, tmp_path)
    served = serve(build("llama", dtype=torch.float64), tmp_path)
    close(outputs(served, batch(model)), outputs(model, batch(model)), "as an engine serves it", 1e-6)


def test_without_the_option_two_ranks_are_patterns_which_such_an_engine_ignores(tmp_path):
    """The planted violation: this is what the option is for."""
    model = build("llama", dtype=torch.float64)
    scatter(unipetl.attach(model, MIXED))
    peft.export(model, tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["rank_pattern"]
    with pytest.raises(AssertionError):
        serve(build("llama", dtype=torch.float64), tmp_path)


@pytest.mark.parametrize(
    ("family", "method", "words"),
    [("roberta", "lora(rank=2)", "classifier"), ("bert", "lora(rank=2) + bitfit", "biases"), ("llama", "ia3", "IA3")],
)
def test_what_engines_do_not_read_is_refused(family, method, words, tmp_path):
    model = build(family)
    unipetl.attach(model, method)
    with pytest.raises(InteropError, match=words):
        peft.export(model, tmp_path / "out", uniform=True)
    assert not (tmp_path / "out").exists()
