"""Parameters of the model itself that attachments train (biases, norms, a head), with other values in each row.

The smallest module that holds such a parameter computes its rows with their own values: at once where it is a linear
map or a layer norm, one attachment at a time otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from unipetl.attaching.rows import Rows, places
from unipetl.errors import AttachError
from unipetl.forms.form import affine, view_with


@dataclass
class OwnRows:
    """Replaces a module's forward while rows are routed.

    Attributes:
        values: attribute of the module -> the parameter of every row.
        lookup: whether the module may be asked for the vectors of tokens and positions.
    """

    module: nn.Module
    path: str
    rows: Rows
    values: dict[str, tuple[nn.Parameter, ...]]
    lookup: bool = False
    uniform: bool = field(init=False)
    compute: Callable[[OwnRows, Tensor], Tensor] | None = field(init=False)

    def __post_init__(self) -> None:
        """Find out whether the rows differ at all, and how the module computes them."""
        kind: type = type(self.module)
        self.compute = _at_once(kind)
        self.uniform = all(one is same[0] for same in self.values.values() for one in same)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Compute what the module computes."""
        if self.uniform:
            return self._with({name: same[0] for name, same in self.values.items()}).forward(*args, **kwargs)
        if isinstance(self.module, nn.Embedding) and not self.lookup:
            raise AttachError(
                f"routed(): {self.path!r} looks up what belongs to no row (relative positions), and the attachments "
                "named train it; activate them one at a time."
            )
        if self.compute is not None and len(args) == 1 and not kwargs:
            return self.compute(self, args[0])
        return self._one_by_one(args, kwargs)

    def of(self, name: str) -> Tensor | None:
        """Return a parameter: that of the module, or (rows named, ...) where rows have their own."""
        if name not in self.values:
            own: Tensor | None = self.module._parameters[name]
            return own
        return torch.stack(self.values[name])

    def _with(self, values: dict[str, nn.Parameter]) -> nn.Module:
        """Return the module with other parameters; it shares everything else, and leaves the module alone."""
        result = view_with(self.module, values)
        result.__dict__.pop("forward", None)
        return result

    def kinds(self) -> list[tuple[nn.Module, list[int]]]:
        """Return the module with each set of values that occurs, and the rows that have it."""
        alike: dict[tuple[int, ...], list[int]] = {}
        for row in range(self.rows.count):
            alike.setdefault(tuple(id(same[row]) for same in self.values.values()), []).append(row)
        return [
            (self._with({name: same[members[0]] for name, same in self.values.items()}), members)
            for members in alike.values()
        ]

    def _one_by_one(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        batch = self.rows.batch
        shared = 1 if isinstance(self.module, nn.Embedding) else 0  # a list of positions is that of every row
        given = [one for one in (*args, *kwargs.values()) if isinstance(one, Tensor)]
        sizes = {one.shape[0] for one in given if one.dim() > shared}
        size = max(sizes, default=0)
        if not sizes <= {1, size} or (batch is not None and size not in (1, batch)):
            raise AttachError(
                f"routed(): {self.path!r}, whose parameters the attachments named train, reads no rows; activate them "
                "one at a time."
            )
        size = size if batch is None else batch
        each = self.rows.each(size)
        parts, order = [], []
        for own, members in self.kinds():
            index = places(members, each, next(own.parameters(recurse=False)).device)
            choose = _chooser(index, size, shared)
            result = own.forward(*map(choose, args), **{name: choose(value) for name, value in kwargs.items()})
            parts.append(_expanded(result, len(index)))
            order.append(index)
        return _joined(parts, torch.cat(order).argsort())


@dataclass
class PositionBias:
    """Stands before ``compute_bias`` of an attention whose table of relative positions is trained: a bias per row."""

    attention: nn.Module
    table: OwnRows

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the bias (batch, heads, n, m)."""
        rows, path = self.table.rows, self.table.path.rpartition(".")[2]
        each = rows.each(rows.count if rows.batch is None else rows.batch)
        parts, order = [], []
        for own, members in self.table.kinds():
            attention: Any = view_with(self.attention, {}, {path: own})
            attention.__dict__.pop("compute_bias")
            bias: Tensor = attention.compute_bias(*args, **kwargs)
            index = places(members, each, bias.device)
            parts.append(bias.expand(len(index), *bias.shape[1:]))
            order.append(index)
        return torch.cat(parts).index_select(0, torch.cat(order).argsort())


def _chooser(index: Tensor, size: int, shared: int) -> Callable[[Any], Any]:
    """Return what takes rows out of tensors of more than ``shared`` axes."""

    def choose(value: Any) -> Any:
        rows = isinstance(value, Tensor) and value.dim() > shared and value.shape[0] == size
        return value.index_select(0, index.to(value.device)) if rows else value

    return choose


def _expanded(result: Any, rows: int) -> Any:
    if isinstance(result, tuple):
        return tuple(_expanded(one, rows) for one in result)
    if not isinstance(result, Tensor) or result.shape[0] == rows:
        return result
    return (result if result.shape[0] == 1 else result[None]).expand(rows, *result.shape[result.shape[0] == 1 :])


def _joined(parts: Sequence[Any], order: Tensor) -> Any:
    if isinstance(parts[0], tuple):
        return tuple(_joined(same, order) for same in zip(*parts, strict=True))
    return torch.cat(list(parts)).index_select(0, order) if isinstance(parts[0], Tensor) else parts[0]


def _mapped(own: OwnRows, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """Return ``W x + b`` with weight (out, in) or (rows, out, in), and bias (out,) or (rows, out)."""
    assert weight is not None
    split = own.rows.split(x)
    if weight.dim() == 2:
        result = affine(split, weight, bias if bias is None or bias.dim() == 1 else None)
        result = result if bias is None or bias.dim() == 1 else result + bias[:, None]
    else:
        result = affine(split, weight, bias if bias is None or bias.dim() == 2 else bias.expand(len(weight), -1))
    return result.reshape(*x.shape[:-1], result.shape[-1])


def _linear(own: OwnRows, x: Tensor) -> Tensor:
    return _mapped(own, x, own.of("weight"), own.of("bias"))


def _conv1d(own: OwnRows, x: Tensor) -> Tensor:
    weight = own.of("weight")
    assert weight is not None
    return _mapped(own, x, weight.transpose(-1, -2), own.of("bias"))


def _layer_norm(own: OwnRows, x: Tensor) -> Tensor:
    norm = own.module
    assert isinstance(norm, nn.LayerNorm)
    split = own.rows.split(x)
    result = nn.functional.layer_norm(split, norm.normalized_shape, None, None, norm.eps)
    for name in ("weight", "bias"):
        value = own.of(name)
        if value is not None:
            value = value if value.dim() == 1 else value[:, None]
            result = result * value if name == "weight" else result + value
    return result.reshape(x.shape)


@cache
def _at_once(kind: type) -> Callable[[OwnRows, Tensor], Tensor] | None:
    """Return how a module of this very class computes all rows at once, or None."""
    from transformers.pytorch_utils import Conv1D

    known: dict[type, Callable[[OwnRows, Tensor], Tensor]] = {nn.Linear: _linear, Conv1D: _conv1d}
    return {**known, nn.LayerNorm: _layer_norm}.get(kind)
