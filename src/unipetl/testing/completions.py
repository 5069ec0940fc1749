"""What the default configs of some model types leave out, and every released model of the type says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Model type -> values to set, with a dot where they belong to an inner config.
COMPLETIONS: Mapping[str, Mapping[str, Any]] = {
    "deepseek_v2": {"num_experts_per_tok": 2, "n_group": 1, "topk_group": 1},
    "diffusion_gemma": {
        "text_config.num_experts": 4,
        "text_config.top_k_experts": 2,
        "text_config.moe_intermediate_size": 704,
    },
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "esm": {"vocab_size": 33, "pad_token_id": 1, "mask_token_id": 32, "token_dropout": False},
    "hunyuan_v1_dense": {"head_dim": 128},
    "hunyuan_v1_moe": {"head_dim": 128},
    "hunyuan_vl": {"text_config.head_dim": 128},
    "hunyuan_vl_text": {"head_dim": 128},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 16},
    "ministral": {"head_dim": 128},
    "nemotron": {"num_key_value_heads": 8, "head_dim": 128},
    "xmod": {"default_language": "en_XX"},
}


def complete(config: Any) -> Any:
    """Set on a default config, in place, what it needs to build a model, and return it."""
    for name, value in COMPLETIONS.get(config.model_type, {}).items():
        *inner, last = name.split(".")
        owner = config
        for part in inner:
            owner = getattr(owner, part)
        setattr(owner, last, value)
    return config
