"""LoRA of experts' parameters against PEFT itself, both ways."""

from __future__ import annotations

import copy
from typing import Any

import pytest

import unipetl
from equivalence.test_expert_oracles import call_of, model_of
from interop import test_peft_library as library
from interop.test_peft_experts import CASES, KINDS
from interop.test_peft_library import loaded_by_peft, peft, scattered
from unipetl.interop import peft as exchange
from unipetl.testing.compare import close, differ, outputs, scatter

pytestmark = [
    *library.pytestmark,
    # PEFT looks for a pattern among the modules alone, says that it ignores one of a parameter, and follows it.
    pytest.mark.filterwarnings("ignore:The following (rank|alpha)_pattern keys did not match:RuntimeWarning"),
]
THEIRS = {
    "both": {"target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]},
    "one": {"target_parameters": ["experts.down_proj"], "use_rslora": True},
    "ranks": {
        "target_parameters": ["gate_up_proj", "layers.1.mlp.experts.down_proj"],
        "rank_pattern": {"down_proj": 2},
        "alpha_pattern": {"layers.0.mlp.experts.gate_up_proj": 7},
    },
    "modules too": {"target_parameters": ["experts.gate_up_proj"], "target_modules": ["q_proj", "v_proj"]},
}


@pytest.fixture(autouse=True)
def _products_in_float64(monkeypatch: Any) -> None:
    from transformers.integrations import moe

    monkeypatch.setattr(moe, "_can_use_grouped_mm", lambda *_: False)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", THEIRS)
def test_their_lora_of_parameters_computes_the_same_here(kind: str, name: str, tmp_path: Any) -> None:
    base = model_of(kind)
    config = peft.LoraConfig(
        **{"r": 3, "lora_alpha": 6, "target_modules": [], "task_type": "CAUSAL_LM", **THEIRS[name]}
    )
    model = scattered(peft.get_peft_model(copy.deepcopy(base), config, autocast_adapter_dtype=False)).double()
    model.save_pretrained(tmp_path)
    call = call_of()
    bare, wanted = outputs(base, call), outputs(model, call)
    attachment = exchange.load(base, tmp_path)
    close(outputs(base, call), wanted, "a LoRA of parameters, loaded here", 1e-5)
    differ(wanted, bare, "the LoRA", 1e-2)
    attachment.detach()
    close(outputs(base, call), bare, "without it")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CASES)
def test_what_we_write_of_experts_computes_the_same_there(kind: str, name: str, tmp_path: Any) -> None:
    base = model_of(kind)
    model = copy.deepcopy(base)
    scatter(unipetl.attach(model, CASES[name], train_head=False))
    exchange.export(model, tmp_path)
    call = call_of()
    wanted = outputs(model, call)
    differ(wanted, outputs(base, call), "the LoRA", 1e-2)
    theirs = loaded_by_peft(copy.deepcopy(base), tmp_path)
    close(outputs(theirs, call), wanted, "read by PEFT", 1e-5)
    theirs.save_pretrained(tmp_path / "again")
    exchange.load(base, tmp_path / "again")
    close(outputs(base, call), wanted, "written by PEFT and read here", 1e-5)
