"""Against PEFT itself: files it writes compute the same here, and files we write compute the same there.

`nox -s peft` runs these in an environment with PEFT; without it they are skipped.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch

import unipetl
from unipetl.interop import peft as exchange
from unipetl.testing import batch, build
from unipetl.testing.compare import close, differ, outputs, scatter

peft = pytest.importorskip("peft")
pytestmark = [
    pytest.mark.slow,
    # PEFT's own remarks on small models and on its defaults are not ours to change; errors in loading are raised below.
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
HEADS = {"bert": None, "roberta": None, "distilbert": None, "bart": None, "t5": None, "t5_gated": None, "gpt2": None,
         "llama": None, "qwen3": None, "mbart": None, "marian": None}  # fmt: skip
TASKS = {
    "bert": "SEQ_CLS", "roberta": "SEQ_CLS", "distilbert": "SEQ_CLS", "bart": "SEQ_2_SEQ_LM", "mbart": "SEQ_2_SEQ_LM",
    "marian": "SEQ_2_SEQ_LM", "t5": "SEQ_2_SEQ_LM", "t5_gated": "SEQ_2_SEQ_LM", "gpt2": "CAUSAL_LM",
    "llama": "CAUSAL_LM", "qwen3": "CAUSAL_LM",
}  # fmt: skip
PROJECTIONS = {
    "bert": ["query", "value", "intermediate.dense", "attention.output.dense"], "roberta": ["query", "value"],
    "distilbert": ["q_lin", "lin1", "lin2"], "bart": ["q_proj", "v_proj", "fc1", "fc2"],
    "mbart": ["k_proj", "out_proj"],
    "marian": ["q_proj", "fc2"], "t5": ["q", "v", "wi", "wo"], "t5_gated": ["q", "o", "wi_0", "wi_1", "wo"],
    "gpt2": ["c_attn", "mlp.c_proj", "c_fc"], "llama": ["q_proj", "v_proj", "gate_proj", "down_proj"],
    "qwen3": ["q_proj", "k_proj", "o_proj"],
}  # fmt: skip
CONV1D = ("gpt2",)


def scattered(model: Any, size: float = 0.3) -> Any:
    """Draw every trained value of PEFT's anew."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for _, parameter in sorted(model.named_parameters(), key=lambda one: one[0]):
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator).to(parameter.dtype) * size)
    return model.eval()


def theirs(family: str, config: Any, folder: Any, dtype: torch.dtype = torch.float64) -> tuple[Any, Any]:
    """Let PEFT make, train and save an adapter; return its model, and a fresh base."""
    base = build(family, dtype=dtype)
    model = scattered(peft.get_peft_model(copy.deepcopy(base), config, autocast_adapter_dtype=False))
    model.to(dtype)
    model.save_pretrained(folder)
    return model, base


def loaded_by_peft(base: Any, folder: Any, dtype: torch.dtype = torch.float64) -> Any:
    """Let PEFT load a folder; a missing or left-over tensor is an error."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*(missing|unexpected|Found).*adapter keys.*")
        model = peft.PeftModel.from_pretrained(base, folder, autocast_adapter_dtype=False)
    return model.to(dtype).eval()


LORAS = {
    "plain": {"r": 3, "lora_alpha": 6},
    "rslora": {"r": 4, "lora_alpha": 3, "use_rslora": True},
    "bias": {"r": 2, "lora_alpha": 5, "bias": "all"},
    "lora_bias": {"r": 2, "lora_alpha": 5, "lora_bias": True},
    "one layer": {"r": 2, "layers_to_transform": [1]},
}


@pytest.mark.parametrize("family", HEADS)
@pytest.mark.parametrize("name", LORAS)
def test_their_lora_computes_the_same_here(family: str, name: str, tmp_path: Any) -> None:
    settings = LORAS[name]
    if (name == "bias" and family in ("t5", "t5_gated", "llama", "qwen3", "distilbert")) or (
        name in ("lora_bias",) and family in ("t5", "t5_gated", "llama", "qwen3")
    ):
        pytest.skip("PEFT trains no such biases there, or trains some of a group of ours only")
    config = peft.LoraConfig(
        target_modules=PROJECTIONS[family], task_type=TASKS[family], fan_in_fan_out=family in CONV1D, **settings
    )
    model, base = theirs(family, config, tmp_path)
    call = batch(base)
    bare, wanted = outputs(base, call), outputs(model, call)
    attachment = exchange.load(base, tmp_path)
    close(outputs(base, call), wanted, "a LoRA of PEFT's, loaded here", 1e-5 if family in ("llama", "qwen3") else 1e-9)
    differ(wanted, bare, "the LoRA")
    attachment.detach()


def test_their_patterns_compute_the_same_here(tmp_path: Any) -> None:
    config = peft.LoraConfig(
        r=2, lora_alpha=3, target_modules=["q_proj", "v_proj"], task_type="SEQ_2_SEQ_LM",
        rank_pattern={"decoder.layers.0.self_attn.q_proj": 5, "v_proj": 4},
        alpha_pattern={"encoder.layers.1.self_attn.v_proj": 7},
    )  # fmt: skip
    model, base = theirs("bart", config, tmp_path)
    wanted = outputs(model, batch(base))
    exchange.load(base, tmp_path)
    close(outputs(base, batch(base)), wanted, "ranks and alphas of their own")


OURS = {
    "lora": "lora(rank=3, scale=1.7)",
    "everywhere": "lora(rank=2, at=all, scale=0.3)",
    "two ranks": "lora(rank=2, at=ffn, scale=3) + lora(rank=5, scale=0.1)",
    "learned": "lora(rank=2, scale=learned)",
    "head": "lora(rank=2) + head_only",
    "bias": "lora(rank=2) + bitfit",
    "ia3": "ia3",
    "prefix": "prefix_tuning(length=3, mlp=None)",
    "prefix by MLP": "prefix_tuning(length=3, mlp=4)",
    "prompt": "prompt_tuning(length=3)",
}


@pytest.mark.parametrize("family", HEADS)
@pytest.mark.parametrize("name", OURS)
def test_what_we_write_computes_the_same_there_and_comes_back(family: str, name: str, tmp_path: Any) -> None:
    base = build(family, dtype=torch.float64)
    model = copy.deepcopy(base)
    try:
        attachment = unipetl.attach(model, OURS[name])
    except unipetl.errors.PlanError as error:
        pytest.skip(str(error))
    scatter(attachment)
    with torch.no_grad():
        for key, value in attachment.tensors().items():
            if key.startswith("model/"):
                value.add_(0.1 * torch.randn_like(value))
    try:
        exchange.export(model, tmp_path)
    except unipetl.errors.InteropError as error:
        if not name.startswith(("prefix", "prompt")):
            raise
        pytest.skip(str(error))
    call = batch(base)
    wanted = outputs(model, call)
    tolerance = 1e-5 if family in ("llama", "qwen3") else 1e-9
    if name == "prompt":  # PEFT keeps prompts in float32, and returns results for them too
        tolerance, read = 1e-5, outputs(loaded_by_peft(copy.deepcopy(base), tmp_path), call)
        close(read[:, -wanted.shape[1] :], wanted, "read by PEFT", tolerance)
    else:
        close(outputs(loaded_by_peft(copy.deepcopy(base), tmp_path), call), wanted, "read by PEFT", tolerance)
    again = copy.deepcopy(base)
    exchange.load(again, tmp_path)
    close(outputs(again, call), wanted, "read back here", tolerance)


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_their_prefix_computes_the_same_here(family: str, tmp_path: Any) -> None:
    config = peft.PrefixTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM")
    model, base = theirs(family, config, tmp_path)
    wanted = outputs(model, batch(base, labels=False))
    exchange.load(base, tmp_path)
    close(outputs(base, batch(base, labels=False)), wanted, "a prefix of PEFT's", 1e-5)


@pytest.mark.parametrize("family", ["gpt2", "roberta", "bert"])
def test_their_prefix_with_absolute_positions_wants_positions(family: str, tmp_path: Any) -> None:
    config = peft.PrefixTuningConfig(num_virtual_tokens=4, task_type=TASKS[family])
    model, base = theirs(family, config, tmp_path)
    call = batch(base, labels=False)
    wanted = outputs(model, call)
    with pytest.raises(unipetl.errors.InteropError, match="shift_positions=True"):
        exchange.load(base, tmp_path)
    exchange.load(base, tmp_path, shift_positions=True)
    first = 4 + (2 if family == "roberta" else 0)  # RoBERTa's positions begin at 2
    positions = torch.arange(first, first + call["input_ids"].shape[1])[None].expand(2, -1)
    close(outputs(base, {**call, "position_ids": positions}), wanted, "a prefix of PEFT's, with moved positions")
    exchange.export(base, tmp_path / "again", shift_positions=True)
    again = loaded_by_peft(build(family, dtype=torch.float64), tmp_path / "again")
    close(outputs(again, call), wanted, "and written for PEFT again", 1e-5)


@pytest.mark.parametrize("family", ["llama", "t5", "t5_gated"])
def test_their_prompt_computes_the_same_here(family: str, tmp_path: Any) -> None:
    config = peft.PromptTuningConfig(num_virtual_tokens=4, task_type=TASKS[family])
    model, base = theirs(family, config, tmp_path)
    call = batch(base)
    wanted = outputs(model, call)[:, -call["labels"].shape[1] :]
    exchange.load(base, tmp_path)
    close(outputs(base, call), wanted, "a prompt of PEFT's", 1e-5)


IA3 = {
    "bert": (["key", "value", "output.dense"], ["output.dense"]),
    "bart": (["k_proj", "v_proj", "fc2"], ["fc2"]),
    "t5": (["k", "v", "wo"], ["wo"]),
    "gpt2": (["c_attn", "mlp.c_proj"], ["mlp.c_proj"]),
    "llama": (["k_proj", "v_proj", "down_proj"], ["down_proj"]),
}


@pytest.mark.parametrize("family", IA3)
def test_their_ia3_computes_the_same_here(family: str, tmp_path: Any) -> None:
    targets, feed_forward = IA3[family]
    config = peft.IA3Config(
        target_modules=targets,
        feedforward_modules=feed_forward,
        task_type=TASKS[family],
        fan_in_fan_out=family in CONV1D,
    )
    model, base = theirs(family, config, tmp_path)
    wanted = outputs(model, batch(base))
    exchange.load(base, tmp_path)
    close(outputs(base, batch(base)), wanted, "factors of PEFT's", 1e-5 if family == "llama" else 1e-9)


def test_a_bfloat16_base_and_float32_files(tmp_path: Any) -> None:
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    model, base = theirs("llama", config, tmp_path, torch.bfloat16)
    wanted = outputs(model, batch(base))
    exchange.load(base, tmp_path)
    close(outputs(base, batch(base)), wanted, "in bfloat16", 0.1)
