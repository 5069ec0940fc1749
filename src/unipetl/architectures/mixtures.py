"""The places inside a mixture of experts: the projections of every expert, however the model keeps their matrices."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from unipetl.architectures.base import Columns, ExpertsTable, Port, Projection, Stacked
from unipetl.architectures.modules import columns_of, find_module, join_path, linear_shape
from unipetl.errors import ArchitectureError
from unipetl.forms import Experts, Features


@dataclass(frozen=True, slots=True)
class Found:
    """One place inside a mixture; paths are those of the whole model.

    Attributes:
        name: ``experts.up``, ``experts.3.up`` or ``shared.up``.
        port: where h is; ``reads`` where x is.
        inside, expert, stacked: see [Site][unipetl.architectures.Site].
    """

    name: str
    representation: str
    owner: str
    shape: Features | Experts
    port: Port
    reads: Port
    inside: str
    expert: int | None = None
    stacked: Stacked | None = None

    @property
    def width(self) -> int:
        """The size of the vectors that the place reads."""
        return _each(self.shape).in_features


def has_places(model: nn.Module, block: str, tables: Sequence[ExpertsTable]) -> bool:
    """Return whether everything that ``tables`` name is in a block."""
    try:
        return all(any(True for _ in places_inside(model, block, one)) for one in tables)
    except ArchitectureError:
        return False


def places_inside(model: nn.Module, block: str, table: ExpertsTable) -> Iterator[Found]:
    """Yield every place of the FFNs that ``table`` describes in one block.

    Raises:
        ArchitectureError: something is not where the table says.
    """
    if "*" not in table.up.module:
        yield from _places(model, block, table, table.name, None)
        return
    for number, name in _numbers(model, join_path(block, table.up.module)):
        one = {part: _numbered(getattr(table, part), name) for part in ("up", "down", "gate")}
        chosen = ExpertsTable(table.name, one["up"], one["down"], one["gate"], interleaved=table.interleaved)  # type: ignore[arg-type]
        yield from _places(model, block, chosen, f"{table.name}.{number}", number)


def _places(model: nn.Module, block: str, table: ExpertsTable, name: str, expert: int | None) -> Iterator[Found]:
    def found(part: str, owner: str, shape: Features | Experts, port: Port, reads: Port) -> Found:
        stacked = whole[part if part != "hidden" else "down"][2]
        return Found(f"{name}.{part}", f"ffn.{part}", owner, shape, port, reads, table.name, expert, stacked)

    parts = {"up": table.up, "gate": table.gate, "down": table.down}
    whole = {part: _whole(model, block, table, one) for part, one in parts.items() if one is not None}
    features: dict[str, Features] = {}
    for part, projection in parts.items():
        if projection is None:
            continue
        if part == "down":
            down, up = _each(whole["down"][1]), features["up"]
            path = join_path(block, projection.module)
            hidden = _like(whole["down"][1], Features(up.in_features, down.in_features))
            first = Port(join_path(block, table.up.module), "input")
            yield found("hidden", whole["down"][0], hidden, Port(path, "input"), first)
        owner, shape, _ = whole[part]
        each = _each(shape)
        columns = _columns(table, projection, each.out_features)
        features[part] = each if columns is None else Features(each.in_features, columns.features)
        path = join_path(block, projection.module)
        yield found(part, owner, _like(shape, features[part]), Port(path, "output", columns), Port(path, "input"))


def _whole(
    model: nn.Module, block: str, table: ExpertsTable, projection: Projection
) -> tuple[str, Features | Experts, Stacked | None]:
    """Return the module that a projection belongs to, its shape without regard to parts, and its parameter."""
    path = join_path(block, projection.module)
    if find_module(model, path) is not None:
        return path, linear_shape(model, path), None
    owner, _, name = path.rpartition(".")
    module = find_module(model, owner)
    weight = None if module is None else module._parameters.get(name)
    if weight is None or weight.dim() != 3:
        raise ArchitectureError(
            f"{type(model).__name__}: expected a linear module, or a parameter with a matrix per expert, at {path!r}."
        )
    total, first, second = weight.shape
    each = Features(first, second) if table.transposed else Features(second, first)
    stacked = Stacked(name, table.transposed, table.biased)
    return owner, Experts(each, total, tuple(range(total))), stacked


def _columns(table: ExpertsTable, projection: Projection, out_features: int) -> Columns | None:
    if table.interleaved and projection.parts > 1:
        return Columns(projection.part, 1, out_features // projection.parts, projection.parts)
    return columns_of(projection, out_features)


def _each(shape: Features | Experts) -> Features:
    return shape.each if isinstance(shape, Experts) else shape


def _like(shape: Features | Experts, each: Features) -> Features | Experts:
    return Experts(each, shape.total, shape.chosen) if isinstance(shape, Experts) else each


def _numbered(projection: Projection | None, name: str) -> Projection | None:
    if projection is None:
        return None
    parts = [name if "*" in part else part for part in projection.module.split(".")]
    return Projection(".".join(parts), projection.part, projection.parts, projection.columns)


def _numbers(model: nn.Module, path: str) -> list[tuple[int, str]]:
    """Return the number and the name of every module that the part of a path with ``*`` stands for."""
    parts = path.split(".")
    place = next(index for index, part in enumerate(parts) if "*" in part)
    parent = find_module(model, ".".join(parts[:place]))
    pattern = re.escape(parts[place]).replace(r"\*", r"(\d+)")
    names = [] if parent is None else [name for name, _ in parent.named_children()]
    found = [(int(match[1]), name) for name in names if (match := re.fullmatch(pattern, name))]
    if not found:
        raise ArchitectureError(f"{type(model).__name__}: no experts at {path!r}, where a table expects them.")
    return sorted(found)
