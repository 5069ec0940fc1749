"""Finds the stacks of a model: lists of like layers, each with attention or at least two linear maps."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from unipetl.inference.linear import is_linear


@dataclass(frozen=True)
class Found:
    """A stack: ``pattern`` is its list of blocks, with ``*`` for the items of outer lists; ``blocks`` their paths."""

    pattern: str
    blocks: tuple[str, ...]


def find_stacks(model: nn.Module) -> list[Found]:
    """Return every stack, in the order of the modules; lists inside blocks (heads, experts) are none."""
    found: dict[str, list[str]] = {}
    claimed: list[str] = []
    for path, module in model.named_modules():
        if not is_list(module) or any(f"{path}.".startswith(f"{one}.") for one in claimed):
            continue
        items = list(module.children())
        if not items or any(isinstance(item, (nn.ModuleList, nn.Sequential)) for item in items):
            continue
        if _stages(items) or not _blocks(items):
            continue
        pattern = re.sub(r"\.\d+\.", ".*.", path)
        blocks = [f"{path}.{index}" for index in range(len(items))]
        found.setdefault(pattern, []).extend(blocks)
        claimed.extend(blocks)
    return [Found(pattern, tuple(blocks)) for pattern, blocks in found.items() if _worth(model, blocks)]


def is_list(module: nn.Module) -> bool:
    """Return whether a module may be a list of blocks: a list, or a sequence of modules of one class that attend."""
    if isinstance(module, nn.ModuleList):
        return True
    items = list(module) if isinstance(module, nn.Sequential) else []
    return bool(items) and len({type(item) for item in items}) == 1 and all(_attends(item) for item in items)


def _blocks(items: list[nn.Module]) -> bool:
    return all(_linears(item) >= 2 for item in items) and (len({type(item) for item in items}) <= 3)


def _stages(items: list[nn.Module]) -> bool:
    """Whether these are stages: each has a list of blocks, all of one class, that attend themselves."""
    return all(any(_inner_blocks(item)) for item in items)


def _inner_blocks(stage: nn.Module) -> Iterator[bool]:
    for module in stage.modules():
        items = list(module.children()) if is_list(module) else []
        if items:
            alike = len({type(item) for item in items}) == 1
            yield alike and all(_attends(item) and _linears(item) >= 4 for item in items)


def _worth(model: nn.Module, blocks: list[str]) -> bool:
    return len(blocks) > 1 or _attends(model.get_submodule(blocks[0]))


def _attends(module: nn.Module) -> bool:
    return any(
        "attn" in name or "attention" in name for inner in module.modules() for name in [type(inner).__name__.lower()]
    )


def _linears(module: nn.Module) -> int:
    return sum(is_linear(inner) for inner in module.modules())
