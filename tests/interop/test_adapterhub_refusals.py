"""What AdapterHub's files mean and unipetl has not is refused with the reason, and the model is as it was."""

from __future__ import annotations

import json

import pytest
import safetensors.torch
import torch

import unipetl
from interop.adapterhub_folders import HOULSBY, PFEIFFER, PLUS, SEQ, D, bert_tensors, folder
from unipetl.errors import InteropError
from unipetl.interop import adapterhub
from unipetl.testing import batch, build
from unipetl.testing.compare import outputs

FAULTS = {
    "gating": ({**SEQ, "use_gating": True}, "averaged over the text"),
    "compacter": ({**SEQ, "phm_layer": True}, "Kronecker"),
    "invertible": ({**SEQ, "inv_adapter": "nice"}, "invertible"),
    "an old invertible": ({**SEQ, "invertible_adapter": {"block_type": "nice"}}, "invertible"),
    "two norms": ({**SEQ, "ln_before": True, "ln_after": True}, "one norm"),
    "residual inside the norm": ({**SEQ, "ln_after": True, "adapter_residual_before_ln": True}, "not added"),
    "norm before at attention": ({**HOULSBY, "original_ln_before": True}, "no representation"),
    "no residual": ({**SEQ, "original_ln_after": False}, "leaves the model's own residual"),
    "two residuals": ({**PLUS, "original_ln_after": True}, "twice"),
    "residual after adding": ({**PFEIFFER, "residual_before_ln": "post_add"}, "residual"),
    "dropout": ({**SEQ, "dropout": 0.1}, "ignore_dropout=True"),
    "stochastic depth": ({**SEQ, "stochastic_depth": 0.1}, "ignore_dropout=True"),
    "activation": ({**SEQ, "non_linearity": "leakyrelu"}, "relu, gelu"),
    "an integer scale": ({**SEQ, "scaling": 4}, "float"),
    "unknown setting": ({**SEQ, "scalling": 4.0}, "scaling"),
    "reft": ({"architecture": "reft"}, "positions"),
    "prompt": ({"architecture": "prompt_tuning"}, "norm"),
    "mtl": ({"architecture": "mtl_lora"}, "each task"),
    "dora": ({"architecture": "lora", "use_dora": True}, "DoRA"),
    "vera": ({"architecture": "lora", "vera_d": 0.1}, "VeRA"),
    "gated lora": ({"architecture": "lora", "use_gating": True}, "averaged"),
    "relu prefix": ({"architecture": "prefix_tuning", "non_linearity": "relu"}, "eject_prefix_tuning"),
    "an architecture that is no word": ({"architecture": ["lora"]}, "architecture"),
    "layers that are no numbers": ({**SEQ, "leave_out": ["1"]}, "numbers of layers"),
    "a rank beyond all memory": ({"architecture": "lora", "r": 10**30}, "between 1 and"),
    "an empty union": ({"architecture": "union", "configs": []}, "without members"),
    "alpha of a union": (
        {"architecture": "union", "configs": [{"architecture": "lora", "alpha": 16}, SEQ]},
        "cannot be told",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_unipetl_has_not_is_refused_with_the_reason(name, tmp_path):
    config, words = FAULTS[name]
    version = "adapters.1.0.0" if "alpha" in name else "adapters.1.3.0"
    model = build("bert")
    with pytest.raises(InteropError, match=words):
        adapterhub.load(model, folder(tmp_path, config, {"x": torch.zeros(1)}, version=version))
    assert unipetl.attachments(model) == ()


def test_a_prefix_of_t5_is_another_function_there(tmp_path):
    config = {"architecture": "prefix_tuning", "prefix_length": 3}
    with pytest.raises(InteropError, match="relative position bias"):
        adapterhub.load(build("t5"), folder(tmp_path, config, {"x": torch.zeros(1)}))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("bert.encoder.layer.1.output.adapters.foo.adapter_up.bias"), "is missing"),
        (lambda t: t.update({"bert.encoder.layer.9.output.adapters.foo.adapter_up.bias": torch.zeros(D)}), "left over"),
        (lambda t: t.update({"bert.encoder.layer.0.output.adapters.foo.adapter_up.bias": torch.zeros(3)}), "shape"),
        (lambda t: t.update({"bert.encoder.layer.0.output.adapters.foo.adapter_up.bias": torch.full((D,), torch.nan)}),
         "NaN"),
        (lambda t: t.update({"encoder.layer.0.output.adapters.foo.adapter_up.bias": torch.zeros(D)}), "twice"),
    ],
)  # fmt: skip
def test_a_file_that_does_not_fit_is_refused_and_the_model_is_as_it_was(change, words, tmp_path):
    tensors = bert_tensors(SEQ)
    change(tensors)
    model = build("bert")
    before = outputs(model, batch(model))
    with pytest.raises(InteropError, match=words):
        adapterhub.load(model, folder(tmp_path, SEQ, tensors))
    assert torch.equal(outputs(model, batch(model)), before)
    assert unipetl.attachments(model) == ()


def test_a_pickle_is_never_opened_and_the_way_out_is_said(tmp_path):
    folder(tmp_path, SEQ, {"x": torch.zeros(1)})
    (tmp_path / "adapter.safetensors").rename(tmp_path / "pytorch_adapter.bin")
    with pytest.raises(InteropError, match=r"is a pickle(.|\n)*python -c .*weights_only=True.*'adapter.safetensors'"):
        adapterhub.load(build("bert"), tmp_path)


def test_a_family_the_library_does_not_have_is_refused(tmp_path):
    with pytest.raises(InteropError, match="'marian' are not known"):
        adapterhub.load(build("marian"), folder(tmp_path, SEQ, {"x": torch.zeros(1)}))


def test_a_folder_of_peft_is_recognised(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    safetensors.torch.save_file({"x": torch.zeros(1)}, tmp_path / "adapter.safetensors")
    with pytest.raises(InteropError, match=r"interop\.peft"):
        adapterhub.load(build("bert"), tmp_path)
