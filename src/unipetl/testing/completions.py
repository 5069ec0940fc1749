"""What the default configs of some model types leave out, and every released model of the type says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: What a model of series must be told: its features are two lags, two of time, and location and scale.
_SERIES: Mapping[str, Any] = {
    "prediction_length": 4,
    "context_length": 8,
    "num_time_features": 2,
    "lags_sequence": [1, 2],
    "feature_size": 6,
}
#: Model type -> values to set, with a dot where they belong to an inner config.
COMPLETIONS: Mapping[str, Mapping[str, Any]] = {
    "autoformer": _SERIES,
    "bamba": {"attn_layer_indices": [9, 18, 27]},
    "blip-2": {"image_token_id": 50265},
    "dbrx": {
        "attn_config.rope_theta": 5e5,
        "attn_config.clip_qkv": 8,
        "ffn_config.hidden_size": 2048,
        "ffn_config.ffn_hidden_size": 64,
    },
    "deepseek_v2": {"num_experts_per_tok": 2, "n_group": 1, "topk_group": 1},
    "diffusion_gemma": {
        "text_config.num_experts": 4,
        "text_config.top_k_experts": 2,
        "text_config.moe_intermediate_size": 704,
    },
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "esm": {"vocab_size": 33, "pad_token_id": 1, "mask_token_id": 32, "token_dropout": False},
    "granitemoehybrid": {"layer_types": [*["linear_attention"] * 5, "full_attention", *["linear_attention"] * 26]},
    "hunyuan_v1_dense": {"head_dim": 128},
    "hunyuan_v1_moe": {"head_dim": 128},
    "hunyuan_vl": {"text_config.head_dim": 128},
    "hunyuan_vl_text": {"head_dim": 128},
    "informer": _SERIES,
    "instructblip": {"image_token_index": 32000},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 16},
    "ministral": {"head_dim": 128},
    "nemotron": {"num_key_value_heads": 8, "head_dim": 128},
    "reformer": {"is_decoder": True},
    "time_series_transformer": _SERIES,
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
