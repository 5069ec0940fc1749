"""Against AdapterHub's library itself: its files compute the same here, and ours compute the same there.

It needs a transformers that unipetl does not run on, so it works in an environment of its own, as a script
(adapterhub_writer.py), and files go between the two. `nox -s adapterhub` makes both environments; the interpreter of
the library's is in UNIPETL_ADAPTERHUB_PYTHON, and without it these tests are skipped.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import safetensors.torch
import torch
import transformers

import unipetl
from unipetl.errors import InteropError
from unipetl.interop import adapterhub
from unipetl.testing.compare import close, differ

PYTHON = os.environ.get("UNIPETL_ADAPTERHUB_PYTHON", "")
SCRIPT = Path(__file__).with_name("adapterhub_writer.py")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON, reason="UNIPETL_ADAPTERHUB_PYTHON names no interpreter with AdapterHub's adapters"),
]
MODELS = ("bert", "bert_tokens", "roberta", "xlm_roberta", "distilbert", "bart", "mbart", "t5", "t5_gated", "gpt2",
          "llama", "mistral", "qwen2", "qwen3", "vit")  # fmt: skip
REASONS = {
    "unipelt": "averaged over the text", "invertible": "invertible", "gated_lora": "averaged", "dora": "DoRA",
    "leaky": "leakyrelu", "two_norms": "one norm", "residual_in_norm": "not added", "dropout": "ignore_dropout",
    "attention_ln_before": "no representation", "reft": "positions", "prompt": "norm",
    "prefix_relu": "eject_prefix_tuning",
}  # fmt: skip


def run(verb: str, folder: Path, *models: str) -> None:
    done = subprocess.run(
        [PYTHON, str(SCRIPT), verb, str(folder), *models], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapterhub")
    run("write", folder)
    return folder


def base_of(folder):
    name = json.loads((folder / "base" / "config.json").read_text())["architectures"][0]
    model = getattr(transformers, name).from_pretrained(
        folder / "base", dtype=torch.float64, attn_implementation="eager"
    )
    return model.eval()


def logits(model, inputs):
    with torch.no_grad():
        return model(**inputs).logits


def real(values, inputs):
    """The values of tokens that are no padding: what stands at a padded place is nobody's business."""
    mask = inputs.get("attention_mask")
    return values[mask.bool()] if mask is not None and values.shape[1:2] == mask.shape[1:2] else values


@pytest.mark.parametrize("name", MODELS)
def test_both_ways(name, written):
    folder = written / name
    inputs = safetensors.torch.load_file(folder / "inputs.safetensors")
    cases = json.loads((written / "index.json").read_text())["cases"][name]
    model = base_of(folder)
    tolerance = (
        1e-4 if name in ("t5", "t5_gated", "llama", "mistral", "qwen2", "qwen3") else 1e-9
    )  # RMS norms in float32
    here = {}
    for case in cases:
        stored = safetensors.torch.load_file(folder / case / "logits.safetensors")
        close(logits(model, inputs), stored["bare"], f"{name} without adapters", tolerance)
        if name.startswith("t5") and ("prefix" in case or case == "mam"):
            with pytest.raises(InteropError, match="relative position bias"):
                adapterhub.load(model, folder / case)
            continue
        attachment = adapterhub.load(model, folder / case)
        here[case] = logits(model, inputs)
        close(real(here[case], inputs), real(stored["logits"], inputs), f"{name} {case}, loaded here", tolerance)
        differ(stored["logits"], stored["bare"], f"{name} {case}", 1e-3)
        adapterhub.export(model, folder / case / "back")
        method = attachment.plan.method
        attachment.detach()
        again = adapterhub.load(model, folder / case / "back")
        assert again.plan.method == method
        close(logits(model, inputs), here[case], f"{name} {case}, exported and loaded", 1e-9)
        again.detach()
    assert unipetl.attachments(model) == ()
    run("read", written, name)
    for case, wanted in here.items():
        found = safetensors.torch.load_file(folder / case / "back" / "read.safetensors")["logits"]
        rounded = max(tolerance, 1e-6)  # the library loads into float32, whatever it is given
        close(real(found, inputs), real(wanted, inputs), f"{name} {case}, read by the library", rounded)


@pytest.mark.parametrize("case", REASONS)
def test_what_is_refused(case, written):
    with pytest.raises(InteropError, match=REASONS[case]):
        adapterhub.load(base_of(written / "bert"), written / "bert" / case)
