"""From a method and a model to a plan. Nothing is touched."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from unipetl import notation
from unipetl.architectures import Architecture, Site, find_blocks, find_sites, join_path, table_of
from unipetl.errors import ArchitectureError, PlanError
from unipetl.inference import Inferred, base_path, infer, infer_from_shapes
from unipetl.method import Method
from unipetl.planning.blueprint import Plan
from unipetl.planning.full_rank import beyond_full_rank
from unipetl.planning.own import own_parameters
from unipetl.planning.places import place, unreached
from unipetl.planning.trained import STATE, head_parameters, is_task_head, trained_parameters
from unipetl.planning.versions import check_transformers
from unipetl.sense import refuse_nonsense

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


def plan(
    method: Method | str,
    model: nn.Module | PreTrainedConfig,
    *,
    architecture: Architecture | None = None,
    train_head: bool = True,
) -> Plan:
    """Check ``method`` against ``model`` and say where every change goes. Nothing is touched.

    Args:
        method: a method, or its text notation.
        model: a model on any device (the meta device too), or a bare config: no weights are needed.
        architecture: a table for a family that unipetl does not know.
        train_head: whether the task head, if the model has one, is trained.

    Raises:
        PlanError: the method makes no sense here; the message has the axis, the value and what would work.
    """
    check_transformers()
    method = notation.parse(method)
    module = model if isinstance(model, nn.Module) else model_from_config(model)
    base, table = _table(module, architecture)
    sites = find_sites(module, base, table)
    for one in method.modifications:
        refuse_nonsense(one)
    placements, groups = place(method, module, sites)
    head = head_parameters(module, base, sites)
    trained = trained_parameters(method, module, head, train_head=train_head)
    return Plan(
        method=method,
        model_class=type(module).__name__,
        model_type=str(getattr(getattr(module, "config", None), "model_type", type(module).__name__)),
        base=base,
        architecture=table,
        placements=placements,
        groups=groups,
        trained=trained,
        stacks=_entries(module, base, sites),
        head=head if is_task_head(module) else (),
        base_parameters=sum(parameter.numel() for parameter in own_parameters(module).values()),
        notes=(*unreached(method, module, base, table), *beyond_full_rank(placements)),
    )


def _entries(model: nn.Module, base: str, sites: tuple[Site, ...]) -> tuple[tuple[str, str, str], ...]:
    first = {site.stack: (find_blocks(model, base, site.stack) or [""])[0] for site in sites}
    found = {
        (
            site.stack_root,
            join_path(site.stack_root, site.stack.entry) if site.stack.entry else "",
            first[site.stack],
        )
        for site in sites
    }
    return tuple(sorted(found))


def model_from_config(config: PreTrainedConfig) -> nn.Module:
    """Return a model of ``config`` on the meta device: shapes without weights.

    Raises:
        PlanError: transformers builds no model from it.
    """
    import transformers

    if not isinstance(config, transformers.PreTrainedConfig):
        raise PlanError(f"expected a model or a transformers config, found {type(config).__name__}.")
    named = [getattr(transformers, name, None) for name in getattr(config, "architectures", None) or ()]
    build: Any = next((found for found in named if found is not None), transformers.AutoModel.from_config)
    try:
        with torch.device("meta"):
            return build(copy.deepcopy(config))  # building fills in what the user left open
    except (ValueError, AttributeError, TypeError) as error:
        raise PlanError(f"transformers cannot build a model from this {type(config).__name__}: {error}") from error


def sites_of(model: nn.Module, architecture: Architecture | None = None) -> tuple[Site, ...]:
    """Return every place of ``model``, in the order of the computation.

    Raises:
        ArchitectureError: its family has no table, or the table does not fit.
    """
    base, table = _table(model, architecture)
    return find_sites(model, base, table)


def _table(model: nn.Module, architecture: Architecture | None) -> tuple[str, Architecture]:
    """Return the base model's path and the table: the given one, the family's, or one found in the model itself."""
    base = base_path(model)
    if architecture is not None:
        return base, architecture
    attached = getattr(model.__dict__.get(STATE), "records", {})
    for record in attached.values():  # with changes inside, another look would see those
        return record.plan.base, record.plan.architecture
    config = getattr(model, "config", None)
    if config is None or not hasattr(config, "model_type"):
        raise ArchitectureError(
            f"{type(model).__name__} is no transformers model (it has no config); pass `architecture=` with its table."
        )
    known = table_of(config.model_type, gated=bool(getattr(config, "is_gated_act", False)))
    if known is not None:
        return base, known
    if model not in _INFERRED:
        on_meta = any(parameter.is_meta for parameter in model.parameters())
        _INFERRED[model] = infer_from_shapes(model) if on_meta else infer(model)
    return _INFERRED[model].base, _INFERRED[model].architecture


_INFERRED: WeakKeyDictionary[nn.Module, Inferred] = WeakKeyDictionary()
