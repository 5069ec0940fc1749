"""The methods that are compared, by a key that is the same in every library."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks import references

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
    "adapter_16": "sequential adapter r=16",
    "pfeiffer_16": "Pfeiffer r=16",
    "multi_head_16": "multi-head parallel adapter r=16",
    "ungated_16": "ungated prefix l=16, MLP 800",
    "lora_qv_folded": "LoRA r=8, query and value, folded",
    "parallel_16_folded": "parallel adapter r=16, folded",
    "mam_16_folded": "MAM l=16 r=16, adapter folded",
}


def title(name: str) -> str:
    """Return the title of a method, of a reference, or of one of them with what was done behind a bar."""
    method, bar, what = name.partition(" | ")
    return (TITLES | references.TITLES).get(method, method) + (f", {what}" if bar else "")


def ranked(names: Iterable[str]) -> list[str]:
    """Return names in the order of the tables: references first, then methods."""
    places = {name: place for place, name in enumerate((*references.TITLES, *TITLES))}
    return sorted(names, key=lambda name: (places.get(name.partition(" | ")[0], len(places)), name))
