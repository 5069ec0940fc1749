"""The methods that are compared, by a key that is the same in every library."""

from __future__ import annotations

TITLES = {
    "lora_qv": "LoRA r=8, query and value",
    "lora_all": "LoRA r=8, every linear",
    "houlsby_16": "Houlsby r=16",
    "houlsby_48": "Houlsby r=48",
    "parallel_16": "parallel adapter r=16",
    "prefix_30": "prefix l=30",
    "prefix_30_mlp": "prefix l=30, MLP 512",
    "mam_16": "MAM l=16 r=16",
    "mam_16_mlp": "MAM l=16 r=16, MLP 800",
    "mam_30_384": "MAM l=30 r=384, MLP 800",
    "bitfit": "BitFit",
    "prompt_30": "prompt l=30",
    "ia3": "(IA)3",
    "lora_qv_folded": "LoRA r=8, query and value, folded",
    "parallel_16_folded": "parallel adapter r=16, folded",
    "mam_16_folded": "MAM l=16 r=16, adapter folded",
}

FOLDED = tuple(key for key in TITLES if key.endswith("_folded"))
