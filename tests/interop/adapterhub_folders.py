"""AdapterHub folders made by hand, and the library's forward equations with torch alone.

Nothing here knows of our forms: `adapt_bert` puts what the library computes into the modules where the library has it.
"""

from __future__ import annotations

import json
import math

import safetensors.torch
import torch
from torch import nn
from torch.nn import functional as F

D = 16  # the width of the toy models
SEQ = {"mh_adapter": False, "output_adapter": True, "non_linearity": "relu", "reduction_factor": 4}
HOULSBY = {**SEQ, "mh_adapter": True, "non_linearity": "swish"}
PFEIFFER = {**SEQ, "original_ln_before": True}
PARALLEL = {**SEQ, "is_parallel": True, "scaling": 4.0}
PLUS = {**SEQ, "original_ln_before": True, "original_ln_after": False, "residual_before_ln": False}
ACTS = {"relu": F.relu, "swish": F.silu, "gelu": F.gelu, "linear": lambda z: z,
        "gelu_new": lambda z: 0.5 * z * (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))}  # fmt: skip
#: Layers of a toy model: where each stack's blocks are, and what a sub-layer's end is called in them.
BERT = ("bert.encoder.layer", {"mh_adapter": "attention.output", "output_adapter": "output"})


def draw(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def folder(path, config, tensors, **about):
    path.mkdir(exist_ok=True)
    whole = {"config": config, "name": "foo", "version": "adapters.1.3.0", "model_type": "bert", **about}
    (path / "adapter_config.json").write_text(json.dumps(whole))
    safetensors.torch.save_file(tensors, path / "adapter.safetensors")
    return path


def bottleneck_tensors(path, config, rank=4, seed=0):
    """One bottleneck under the library's names."""
    at = f"{path}.adapters.foo"
    linear = 1 if config.get("ln_before") else 0
    made = {
        f"{at}.adapter_down.{linear}.weight": draw(rank, D, seed=seed) / 4,
        f"{at}.adapter_down.{linear}.bias": draw(rank, seed=seed + 1) / 4,
        f"{at}.adapter_up.weight": draw(D, rank, seed=seed + 2) / 2,
        f"{at}.adapter_up.bias": draw(D, seed=seed + 3) / 4,
    }
    for option, names in {
        "ln_before": ("adapter_norm_before", "adapter_down.0"),
        "ln_after": ("adapter_norm_after",),
    }.items():
        for name in names if config.get(option) else ():
            made[f"{at}.{name}.weight"] = 1 + draw(D, seed=seed + 4) / 4
            made[f"{at}.{name}.bias"] = draw(D, seed=seed + 5) / 4
    if config.get("scaling") in ("learned", "channel"):
        made[f"{at}.scaling"] = 1 + draw(1 if config["scaling"] == "learned" else D, seed=seed + 6) / 2
    return made


def sized(tensors, path):
    at = f"{path}.adapters.foo."
    return {key.removeprefix(at): value for key, value in tensors.items() if key.startswith(at)}


def library(config, own, h, x, norm):
    """What the library's sub-layer end computes from the result h and the residual x; norm is the post-norm or None."""

    def bottleneck(z):
        linear = 0
        if config.get("ln_before"):
            linear, z = 1, F.layer_norm(z, (D,), own["adapter_norm_before.weight"], own["adapter_norm_before.bias"])
        z = F.linear(z, own[f"adapter_down.{linear}.weight"], own[f"adapter_down.{linear}.bias"])
        z = F.linear(ACTS[config["non_linearity"]](z), own["adapter_up.weight"], own["adapter_up.bias"])
        z = z * (own["scaling"] if "scaling" in own else config.get("scaling", 1.0))
        if config.get("ln_after"):
            z = F.layer_norm(z, (D,), own["adapter_norm_after.weight"], own["adapter_norm_after.bias"])
        return z

    if config.get("is_parallel"):
        result = h + bottleneck(x)
    else:
        read = h
        if config.get("original_ln_before"):
            read = h + x if norm is None else norm(h + x)
        residual = h if config.get("residual_before_ln", True) else read
        result = residual + bottleneck(read)
    if config.get("original_ln_after", True):
        result = result + x if norm is None else norm(result + x)
    return result


def adapt_bert(model, config, tensors):
    """Put the library's sub-layer ends into a BERT, by hand."""

    class End(nn.Module):
        def __init__(self, old, own):
            super().__init__()
            self.old, self.own = old, own

        def forward(self, hidden_states, input_tensor):
            h = self.old.dropout(self.old.dense(hidden_states))
            return library(config, self.own, h, input_tensor, self.old.LayerNorm)

    for layer, block in enumerate(model.bert.encoder.layer):
        for where, holder in ((block.attention, "attention.output"), (block, "output")):
            own = sized(tensors, f"bert.encoder.layer.{layer}.{holder}")
            if own:
                where.output = End(where.output, own)
    return model


def bert_tensors(config, layers=(0, 1), rank=4):
    made = {}
    for layer in layers:
        for place, (option, holder) in enumerate(BERT[1].items()):
            if config[option]:
                made |= bottleneck_tensors(f"{BERT[0]}.{layer}.{holder}", config, rank, seed=100 * layer + 10 * place)
    return made
