"""Modules by their path, and how many features they read and give."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from unipetl.architectures.base import Columns, Port, Projection
from unipetl.errors import ArchitectureError
from unipetl.forms import Features


def linear_shape(model: nn.Module, path: str) -> Features:
    """Return the in and out features of the linear map at ``path`` (Linear, Conv1D, or quantised).

    Raises:
        ArchitectureError: there is no linear map.
    """
    module = find_module(model, path)
    if module is None:
        raise ArchitectureError(f"{type(model).__name__} has no module {path!r}, which its table names.")
    found = linear_features(module)
    if found is None:
        raise ArchitectureError(f"{path!r} is a {type(module).__name__}, and not a linear map with known features.")
    return Features(*found)


def linear_features(module: nn.Module) -> tuple[int, int] | None:
    """Return how many features a module says it reads and gives, or None where it says nothing of the kind."""
    for reads, gives in (("in_features", "out_features"), ("nx", "nf")):  # the latter: transformers' Conv1D
        first, second = getattr(module, reads, None), getattr(module, gives, None)
        if isinstance(first, int) and isinstance(second, int):
            return first, second
    return None


def projected(model: nn.Module, block: str, projection: Projection) -> tuple[Port, Features]:
    """Return where the result of a projection in ``block`` is, and its shape."""
    path = join_path(block, projection.module)
    whole = linear_shape(model, path)
    columns = columns_of(projection, whole.out_features)
    if columns is None:
        return Port(path, "output"), whole
    return Port(path, "output", columns), Features(whole.in_features, columns.features)


def columns_of(projection: Projection, out_features: int) -> Columns | None:
    """Return which of a module's ``out_features`` results are the projection's; None means all."""
    if projection.columns is not None or projection.parts == 1:
        return projection.columns
    size = out_features // projection.parts
    return Columns(projection.part * size, size)


def absolute(block: str, port: Port) -> Port:
    """Return a port inside ``block`` as one of the whole model."""
    return replace(port, module=join_path(block, port.module))


def attribute_of(model: nn.Module, path: str, name: str) -> int:
    """Return a whole number that a module has as an attribute.

    Raises:
        ArchitectureError: it has none of that name.
    """
    value = getattr(find_module(model, path), name, None)
    if not isinstance(value, int):
        raise ArchitectureError(f"{path!r} has no integer attribute {name!r}, which its table names.")
    return value


def join_path(first: str, second: str) -> str:
    """Return the path of ``second`` inside ``first``, either of which may be empty."""
    return f"{first}.{second}" if first and second else first or second


def find_module(model: nn.Module, path: str) -> nn.Module | None:
    """Return the module at ``path``, or None."""
    found: object = model
    for part in path.split(".") if path else []:
        found = getattr(found, part, None)
        if not isinstance(found, nn.Module):
            return None
    return found if isinstance(found, nn.Module) else None
