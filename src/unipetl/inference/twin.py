"""For a model without weights: infer the table of a small model of the same structure, and scale it up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from unipetl.architectures import Architecture, Columns, Projection, StackTable, find_blocks, join_path
from unipetl.architectures.base import AttentionTable
from unipetl.errors import ArchitectureError
from unipetl.forms import Heads
from unipetl.inference.ambient import undisturbed
from unipetl.inference.infer import Inferred, infer
from unipetl.inference.linear import features
from unipetl.inference.small import small_config


@undisturbed()
def infer_from_shapes(model: nn.Module) -> Inferred:
    """Return a table for a model on the meta device, found on a small twin that can compute.

    Raises:
        ArchitectureError: no twin could be built, or nothing was found in it.
    """
    config: Any = getattr(model, "config", None)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            twin = type(model)(small_config(config)).eval()
    except Exception as error:  # another model's constructor may fail in any way
        raise ArchitectureError(
            f"{type(model).__name__}: no small model of its kind could be built to find its places "
            f"({type(error).__name__}: {next(iter(str(error).splitlines()), '')}). Pass the model with its weights, or "
            "`architecture=` with a table."
        ) from error
    found = infer(twin)
    stacks = tuple(_scaled(one, found.base, twin, model) for one in found.architecture.stacks)
    return Inferred(found.base, Architecture(found.architecture.model_types, stacks))


def _scaled(table: StackTable, base: str, twin: nn.Module, model: nn.Module) -> StackTable:
    attentions = []
    for one in table.attentions:
        if one.layers is not None:  # which of many layers are like which of the twin's few is not known
            raise ArchitectureError(
                f"{type(model).__name__}: {one.core!r} is laid out differently in different layers, and only a forward "
                "pass shows which are alike. Pass the model with its weights, or `architecture=` with a table."
            )
        block, real = (_first_with(one, table, base, module) for module in (twin, model))
        attentions.append(_fit(one, _Ratio(twin, block, model, real)))
    return replace(table, attentions=tuple(attentions))


def _first_with(attention: AttentionTable, table: StackTable, base: str, model: nn.Module) -> str:
    for block in find_blocks(model, base, table) or []:
        try:
            model.get_submodule(join_path(block, attention.query.module))
        except AttributeError:
            continue
        return block
    raise ArchitectureError(f"{type(model).__name__} has no {attention.core!r}, which its small twin has.")


class _Ratio:
    """How many times as many features a projection of the model has as the twin's."""

    def __init__(self, twin: nn.Module, block: str, model: nn.Module, real: str) -> None:
        self.pairs = ((twin, block), (model, real))

    def of(self, projection: Projection) -> int:
        small, large = (self._features(module, join_path(block, projection.module)) for module, block in self.pairs)
        if large % small:
            raise ArchitectureError(f"{projection.module!r}: {large} features are no multiple of its twin's {small}.")
        return large // small

    def width(self, attention: AttentionTable) -> int:
        """Return the size of the vectors that the model's sub-layer reads, which its output projection gives back."""
        model, block = self.pairs[1]
        return self._features(model, join_path(block, attention.output))

    @staticmethod
    def _features(model: nn.Module, path: str, side: int = 1) -> int:
        found = features(model.get_submodule(path))
        assert found is not None
        return found[side]


def _fit(one: AttentionTable, ratio: _Ratio) -> AttentionTable:
    heads = one.heads
    if heads is not None:
        heads = Heads(
            width=ratio.width(one),
            query_heads=heads.query_heads,
            key_heads=heads.key_heads,
            key_dim=heads.key_dim * ratio.of(one.query),
            value_dim=heads.value_dim * ratio.of(one.value),
        )
    query, key, value = (_fit_projection(part, ratio) for part in (one.query, one.key, one.value))
    return replace(one, heads=heads, query=query, key=key, value=value)


def _fit_projection(projection: Projection, ratio: _Ratio) -> Projection:
    if projection.columns is None:
        return projection
    factor, old = ratio.of(projection), projection.columns
    return replace(projection, columns=Columns(old.start * factor, old.size * factor, old.count, old.step * factor))
