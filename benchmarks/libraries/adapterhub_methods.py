"""The methods of AdapterHub's library `adapters`, which needs an older transformers than the others."""

from __future__ import annotations

from typing import Any

import adapters
import adapters.composition

PACKAGES = ("adapters", "torch", "transformers")
NAME = "default"


def _width(model: Any) -> int:
    return model.config.hidden_size


def _lora(model: Any, *, every: bool = False) -> Any:
    places = {"intermediate_lora": every, "output_lora": every, "attn_matrices": ["q", "v"]}
    if every:
        places["attn_matrices"] = ["q", "k", "v"]  # it has no place at the attention's output
    return adapters.LoRAConfig(r=8, alpha=16, **places)


def _mam(model: Any, length: int, rank: int, scale: float) -> Any:
    return adapters.ConfigUnion(
        adapters.PrefixTuningConfig(prefix_length=length, bottleneck_size=800),
        adapters.ParBnConfig(reduction_factor=_width(model) / rank, scaling=scale),
    )


METHODS = {
    "lora_qv": _lora,
    "houlsby_16": lambda model: adapters.DoubleSeqBnConfig(reduction_factor=_width(model) / 16),
    "houlsby_48": lambda model: adapters.DoubleSeqBnConfig(reduction_factor=_width(model) / 48),
    "parallel_16": lambda model: adapters.ParBnConfig(reduction_factor=_width(model) / 16, scaling=1.0),
    "prefix_30": lambda model: adapters.PrefixTuningConfig(prefix_length=30, flat=True),
    "prefix_30_mlp": lambda model: adapters.PrefixTuningConfig(prefix_length=30, bottleneck_size=512),
    "mam_16_mlp": lambda model: _mam(model, 16, 16, 2.0),
    "mam_30_384": lambda model: _mam(model, 30, 384, 4.0),
    "ia3": lambda model: adapters.IA3Config(),
    "lora_qv_folded": _lora,
}


def attach(model: Any, method: str) -> Any:
    head = [one for name, one in model.named_parameters() if "classifier" in name]
    adapters.init(model)
    model.add_adapter(NAME, config=METHODS[method](model))
    model.to(device=model.device, dtype=model.dtype)  # it makes its parameters in float32
    model.train_adapter(NAME)
    for one in head:
        one.requires_grad_(False)
    if method.endswith("_folded"):
        model.merge_adapter(NAME)
    return model


def save(attached: Any, folder: str) -> None:
    attached.save_adapter(folder, NAME, with_head=False, use_safetensors=True)


def load(model: Any, folder: str) -> Any:
    adapters.init(model)
    name = model.load_adapter(folder, with_head=False, use_safetensors=True)
    model.train_adapter(name)
    return model


def attach_more(attached: Any, method: str, names: list[str]) -> None:
    for name in names:
        attached.add_adapter(name, config=METHODS[method](attached))
    attached.to(device=attached.device, dtype=attached.dtype)


def switch(attached: Any, name: str) -> None:
    attached.set_active_adapters(name)


def routed(attached: Any, inputs: dict[str, Any], names: list[str]) -> None:
    attached.set_active_adapters(adapters.composition.BatchSplit(*names, batch_sizes=[1] * len(names)))
    attached(**inputs)
