"""Names for the stacks of a model: by what they see in a model of several, and by whether they generate."""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import nn

from unipetl.inference.blocks import Found


def names_of(model: nn.Module, stacks: Sequence[Found]) -> list[str]:
    """Return a name for every stack, all different: ``vision``, ``text``, ``encoder``, ``decoder``, or its path."""
    config = getattr(model, "config", None)
    encoder_decoder = bool(getattr(config, "is_encoder_decoder", False))
    names: list[str] = []
    for found in stacks:
        path = found.pattern.lower()
        name = next((name for name, pattern in _MODALITIES if len(stacks) > 1 and re.search(pattern, path)), None)
        if name is None:
            decoder = "decoder" in path if encoder_decoder or "decoder" in path else _generates(model)
            name = "decoder" if decoder else "encoder"
        names.append(name)
    for name in {name for name in names if names.count(name) > 1}:
        same = [index for index, one in enumerate(names) if one == name]
        for index in same:
            names[index] = re.sub(r"[^a-z0-9]+", "_", stacks[index].pattern.lower().replace("*", "")).strip("_")
    return names


_MODALITIES = (
    ("vision", r"vision|visual|image"),
    ("audio", r"audio|speech"),
    ("qformer", r"qformer"),
    ("text", r"text|language"),
)


def _generates(model: nn.Module) -> bool:
    able = getattr(model, "can_generate", None)
    if callable(able) and able():
        return True
    causal = {flag for one in model.modules() if isinstance(flag := getattr(one, "is_causal", None), bool)}
    if causal:  # attentions that say it
        return True in causal
    config = getattr(model, "config", None)
    return bool(getattr(config, "use_cache", False)) and not hasattr(config, "type_vocab_size")
