"""Which layers of a config a small one keeps: the first of every kind, however the config says which are alike."""

from __future__ import annotations

import re
from typing import Any

#: Lists of the numbers of layers that have something: ``attn_layer_indices``, ``full_attn_idxs``, ``mlp_only_layers``.
_NUMBERS = re.compile(r"(layer_indices|layer_ids|_idxs|_only_layers|_at_layers|cross_attention_layers)$")
#: The last layers use the keys and values of earlier ones: how many.
SHARED = "num_kv_shared_layers"


def kept_layers(values: dict[str, Any], depth: int) -> list[int]:
    """Return the numbers of the layers that stay: the first of every kind, two at least.

    Args:
        values: the attributes of a config. A kind is what lists of ``depth`` entries say of a layer, whether lists of
            numbers name it, and whether it shares an earlier layer's keys and values.
        depth: the number of layers.

    Returns:
        Numbers in order. Where kinds repeat (``attn_layer_period``, ``block_types``), the first layers up to the
        last kind.
    """
    repeated = [
        values[offset] + 1
        for name in values
        if name.endswith("layer_period") and isinstance(values.get(offset := name[: -len("period")] + "offset"), int)
    ]
    if repeated and max(repeated) <= depth and not any(_says_kinds(value, depth) for value in values.values()):
        return list(range(max(2, *repeated)))
    pattern = next(
        (one for name, one in values.items() if name == "block_types" and isinstance(one, (list, tuple))), ()
    )
    if 1 < len(pattern) < depth:
        return list(range(len(pattern)))
    kinds: list[tuple[Any, ...]] = [()] * depth
    for name, value in values.items():
        if _says_kinds(value, depth):
            kinds = [(*kind, one) for kind, one in zip(kinds, value, strict=True)]
        elif are_numbers(name, value, depth):
            kinds = [(*kind, index in value) for index, kind in enumerate(kinds)]
    shared = values.get(SHARED)
    if isinstance(shared, int) and 0 < shared < depth:
        kinds = [(*kind, index >= depth - shared) for index, kind in enumerate(kinds)]
    first = [index for index, kind in enumerate(kinds) if kind not in kinds[:index]]
    for index in range(depth):
        if len(first) >= min(2, depth):
            break
        if index not in first:
            first.append(index)
    return sorted(first)


def are_numbers(name: str, value: Any, depth: int) -> bool:
    """Return whether a value is a list of the numbers of some layers, by its name."""
    if not isinstance(value, (list, tuple)) or not value or not _NUMBERS.search(name):
        return False
    return all(type(one) is int and 0 <= one < depth for one in value)


def _says_kinds(value: Any, depth: int) -> bool:
    return (
        isinstance(value, (list, tuple))
        and len(value) == depth
        and all(isinstance(one, (str, int, bool)) for one in value)
    )
