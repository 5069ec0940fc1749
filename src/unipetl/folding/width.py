"""How a model's config says how wide its FFNs are.

A plain checkpoint is one whose config builds modules of the checkpoint's shapes. So the words of the config are
not trusted but tried: a model without weights is built from the changed config, and its shapes are compared.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from unipetl.folding.edits import SetConfig
from unipetl.folding.linear import why_unreadable
from unipetl.folding.targets import Anatomy
from unipetl.planning.units import FeedForward

#: What configs call the width of the FFNs of one stack, and of all.
OF_A_STACK = ("{stack}_ffn_dim", "{stack}_intermediate_size")
OF_ALL = ("intermediate_size", "d_ff", "hidden_dim", "ffn_dim", "n_inner", "ffn_hidden_size", "d_inner")


@dataclass(frozen=True)
class Widths:
    """The config's new values, and the FFNs that get units that do nothing, with the width they get."""

    settings: list[SetConfig]
    padded: list[tuple[FeedForward, int]]


def width_settings(anatomy: Anatomy, wanted: Mapping[str, int], occupied: set[tuple[str, str]]) -> Widths | str:
    """Return how the config says that FFNs have their new widths, or why it cannot.

    Args:
        anatomy: the model, as it is before the fold.
        wanted: up-projection of an FFN -> its new number of units. FFNs that share a value of the config with
            one of these are widened to it.
        occupied: ends of modules that must keep their width.
    """
    config: Any = getattr(anatomy.model, "config", None)
    if config is None:
        return f"{type(anatomy.model).__name__} has no config to say how wide its FFNs are"
    layers: dict[str, dict[str, FeedForward]] = {}
    for site in anatomy.sites:
        if site.representation == "ffn":
            ffn = anatomy.feed_forward(site)
            if isinstance(ffn, str):
                return ffn
            layers.setdefault(site.stack.stack, {})[ffn.up] = ffn
    groups: dict[str, dict[str, FeedForward]] = {}
    for stack, ffns in layers.items():
        name = _name(config, stack, next(iter(ffns.values())).width)
        if name is None:
            if any(up in wanted for up in ffns):
                return f"{type(config).__name__} has no value that says how wide its FFNs are"
            continue
        groups.setdefault(name, {}).update(ffns)
    settings: list[SetConfig] = []
    padded: list[tuple[FeedForward, int]] = []
    for name, ffns in groups.items():
        if not any(up in wanted for up in ffns):
            continue
        width = max(max(wanted.get(up, 0), ffn.width) for up, ffn in ffns.items())
        settings.append(SetConfig(name, width))
        for up, ffn in ffns.items():
            if wanted.get(up, ffn.width) < width:
                why = _why_not_padded(anatomy.model, ffn, occupied)
                if why is not None:
                    return why
                padded.append((ffn, width))
    every = [ffn for ffns in layers.values() for ffn in ffns.values()]
    return _tried(anatomy.model, settings, wanted, padded, every) or Widths(settings, padded)


def _name(config: Any, stack: str, width: int) -> str | None:
    for name in (*(one.format(stack=stack) for one in OF_A_STACK), *OF_ALL):
        if getattr(config, name, None) == width:
            return name
    unset = [name for name in OF_ALL if name in config.to_dict() and getattr(config, name) is None]
    return unset[0] if unset else None


def _why_not_padded(model: nn.Module, ffn: FeedForward, occupied: set[tuple[str, str]]) -> str | None:
    for path in ffn.projections:
        side = "input" if path == ffn.down else "output"
        why = why_unreadable(model.get_submodule(path))
        if (path, side) in occupied:
            why = "a change that stays is made for the width it has"
        if not (ffn.separate or ffn.fused):
            why = "it computes more than the FFN's projections"
        if why is not None:
            return f"{path!r} must become as wide as the others: {why}"
    return None


def _tried(
    model: nn.Module,
    settings: list[SetConfig],
    wanted: Mapping[str, int],
    padded: list[tuple[FeedForward, int]],
    every: Iterable[FeedForward],
) -> str | None:
    """Build the model that the new config describes, without weights; return how its shapes are not the wanted."""
    config = copy.deepcopy(model.config)
    for one in settings:
        setattr(config, one.name, one.value)
    build: Any = type(model)
    try:
        with torch.device("meta"):
            built: nn.Module = build(config)
    except (ValueError, TypeError, RuntimeError, AttributeError) as error:
        return f"{type(model).__name__} cannot be built from its config with {_words(settings)}: {error}"
    fused = {ffn.up for ffn in every if ffn.fused}
    widths = {**wanted, **{ffn.up: width for ffn, width in padded}}
    widths = {path: width * (1 + (path in fused)) for path, width in widths.items()}
    shapes = {name: parameter.shape for name, parameter in built.named_parameters()}
    for path, width in widths.items():
        if width not in shapes.get(f"{path}.weight", ()):
            return f"the config's {_words(settings)} does not make {path!r} {width} wide"
    return None


def _words(settings: list[SetConfig]) -> str:
    return ", ".join(f"{one.name}={one.value}" for one in settings)
