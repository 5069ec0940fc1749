"""unipetl's methods."""

from __future__ import annotations

from typing import Any

import unipetl

PACKAGES = ("unipetl", "torch", "transformers")
METHODS = {
    "lora_qv": "lora(rank=8, alpha=16)",
    "lora_all": "lora(rank=8, alpha=16, at=all)",
    "houlsby_16": "houlsby(rank=16)",
    "houlsby_48": "houlsby(rank=48)",
    "parallel_16": "parallel_adapter(rank=16)",
    "prefix_30": "prefix_tuning(length=30, mlp=None)",
    "prefix_30_mlp": "prefix_tuning(length=30, mlp=512)",
    "mam_16": "mam(length=16, rank=16, scale=2, mlp=None)",
    "mam_16_mlp": "mam(length=16, rank=16, scale=2)",
    "mam_30_384": "mam(length=30, rank=384, scale=4)",
    "bitfit": "bitfit",
    "prompt_30": "prompt_tuning(length=30)",
    "ia3": "ia3()",
    "adapter_16": "adapter(rank=16)",
    "pfeiffer_16": "pfeiffer(rank=16)",
    "multi_head_16": "multi_head_parallel_adapter(rank=16)",
    "ungated_16": "ungated_prefix(length=16)",
    "lora_qv_folded": "lora(rank=8, alpha=16)",
    "parallel_16_folded": "scaled_parallel_adapter(rank=16, scale=2, activation=model)",
    "mam_16_folded": "mam(length=16, rank=16, scale=2, mlp=None, activation=model)",
}


def attach(model: Any, method: str) -> Any:
    unipetl.attach(model, METHODS[method], train_head=False)
    if method.endswith("_folded"):
        unipetl.fold(model, partial=True)  # a prefix stays
    return model


def save(attached: Any, folder: str) -> None:
    unipetl.save(attached, folder)


def load(model: Any, folder: str) -> Any:
    return unipetl.load(model, folder).model


def attach_more(attached: Any, method: str, names: list[str]) -> None:
    for name in names:
        unipetl.activate(attached, None)
        unipetl.attach(attached, METHODS[method], name=name, train_head=False)


def switch(attached: Any, name: str) -> None:
    unipetl.activate(attached, name)


def routed(attached: Any, inputs: dict[str, Any], names: list[str]) -> None:
    with unipetl.routed(attached, names):
        attached(**inputs)
