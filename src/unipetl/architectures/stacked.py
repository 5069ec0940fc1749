"""A parameter that holds one matrix for each expert, seen from the products that a model makes with it.

Models keep such a parameter as (experts, out, in) or (experts, in, out), and multiply in several ways: one expert after
the other, every row with its own expert's matrix, or rows sorted by expert. A [StackedMatrices][] stands for the
parameter during a call and hands every product to a function, which knows what is read, by which experts, and how to
go on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from unipetl.errors import AttachError
from unipetl.forms import Visit

#: ``(x, visit, multiply)``: x is (..., in), as ``visit`` says whose rows; ``multiply(x)`` is (..., out).
OnProduct = Callable[[Tensor, Visit, Callable[[Tensor], Tensor]], Tensor]

_MATMUL = {torch.matmul, torch.mm, Tensor.matmul, Tensor.mm, Tensor.__matmul__, Tensor.__rmatmul__}
_BMM = {torch.bmm, Tensor.bmm}
_GROUPED = {"_grouped_mm", "grouped_mm", "grouped_mm_fallback"}
_SAME = {"contiguous", "detach", "clone", "data", "to", "type_as", "float", "half", "bfloat16", "double"}
_TRANSPOSED = {"transpose", "swapaxes", "mT", "T", "t", "permute"}
_TOLD = {"shape", "size", "dim", "ndim", "dtype", "device", "data_ptr", "stride", "is_contiguous", "numel",
         "requires_grad", "is_floating_point", "is_cuda", "is_meta", "element_size", "storage_offset"}  # fmt: skip


@dataclass(frozen=True, eq=False)
class StackedMatrices:
    """Stands for a stacked parameter, or for what was taken out of it by an index.

    Attributes:
        weight: the values, with whatever index and transposition.
        on_product: what every product is handed to.
        name: the parameter's name, for messages.
        visit: which experts' matrices these are; None for all of them.
    """

    weight: Tensor
    on_product: OnProduct
    name: str
    visit: Visit | None = None

    def __getitem__(self, index: Any) -> StackedMatrices:
        """Return one expert's matrix, or those of several rows."""
        if self.visit is not None or not _is_index(index):
            raise self._unknown(f"[{index!r}]")
        one = isinstance(index, int) or index.dim() == 0
        return replace(self, weight=self.weight[index], visit=Visit(expert=index) if one else Visit(rows=index))

    def __len__(self) -> int:
        """Return the number of experts."""
        return self.weight.shape[0]

    def __getattr__(self, name: str) -> Any:
        """Return what the parameter says of itself, or a method that only lays it out otherwise."""
        if name in _TOLD:
            return getattr(self.weight, name)
        if name in ("T", "mT", "data"):
            return self._laid_out(name, getattr(self.weight, name))
        if name in _TRANSPOSED | _SAME:
            return lambda *args, **kwargs: self._laid_out(name, getattr(self.weight, name)(*args, **kwargs))
        if name.startswith("__"):
            raise AttributeError(name)
        raise self._unknown(f".{name}")

    def _laid_out(self, name: str, weight: Tensor) -> StackedMatrices:
        swapped = (*self.weight.shape[:-2], *reversed(self.weight.shape[-2:]))
        moved = name in _TRANSPOSED and weight.dim() == 3 and weight.stride(0) != self.weight.stride(0)
        if moved or weight.shape != (swapped if name in _TRANSPOSED else self.weight.shape):
            raise self._unknown(f".{name}")
        return replace(self, weight=weight)

    def __matmul__(self, other: Any) -> Any:
        """Refuse: models put what an expert reads on the left."""
        raise self._unknown("@")

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Hand a product on; anything else that a model may do with matrices is unknown.

        Raises:
            AttachError: the function is no product that is known.
        """
        kwargs = kwargs or {}
        own = next(one for one in (*args, *kwargs.values()) if isinstance(one, cls))
        if func is nn.functional.linear:
            return own._linear(*args, **kwargs)
        name = str(getattr(func, "__name__", func)).rpartition(".")[2]
        if func in _MATMUL and len(args) == 2 and args[1] is own and own.visit is not None:
            return own._right(args[0])
        if func in (_BMM | _MATMUL) and len(args) == 2 and own.visit is None and args[1] is own and args[0].dim() == 3:
            return own.on_product(args[0], Visit(), lambda x: torch.bmm(x, own.weight))
        if func in _BMM and len(args) == 2 and own.visit is not None and own.visit.rows is not None:
            return own._batched(*args)
        if name in _GROUPED and len(args) >= 2 and args[1] is own and own.visit is None:
            ends = kwargs.get("offs", args[2] if len(args) > 2 else None)
            rest = {key: value for key, value in kwargs.items() if key != "offs" and value is not None}
            if isinstance(ends, Tensor) and not rest:
                return own.on_product(args[0], Visit(ends=ends), lambda x: func(x, own.weight, offs=ends))
        raise own._unknown(name)

    def _linear(self, x: Tensor, weight: Any, bias: Tensor | None = None) -> Tensor:
        """``x Wᵀ + b`` for one expert."""
        if weight is not self or self.visit is None or self.visit.expert is None:
            raise self._unknown("linear")
        return self.on_product(x, self.visit, lambda x: nn.functional.linear(x, self.weight, bias))

    def _right(self, x: Tensor) -> Tensor:
        """``x W`` for one expert."""
        assert self.visit is not None
        if self.visit.expert is None:
            raise self._unknown("matmul")
        return self.on_product(x, self.visit, lambda x: x @ self.weight)

    def _batched(self, first: Any, second: Any) -> Tensor:
        """``W x`` with x (rows, in, 1), or ``x W`` with x (rows, 1, in): every row with a matrix of its own."""
        assert self.visit is not None
        left = first is self
        x: Tensor = second if left else first
        axis = 2 if left else 1
        if x.shape[axis] != 1:
            raise self._unknown("bmm")

        def multiply(x: Tensor) -> Tensor:
            rows = x.unsqueeze(axis)
            return (torch.bmm(self.weight, rows) if left else torch.bmm(rows, self.weight)).squeeze(axis)

        return self.on_product(x.squeeze(axis), self.visit, multiply).unsqueeze(axis)

    def _unknown(self, what: str) -> AttachError:
        return AttachError(
            f"the experts compute {what} with {self.name!r}, in a way in which nothing can be added to a product. "
            'model.set_experts_implementation("eager"), "batched_mm" or "grouped_mm" work.'
        )


def _is_index(index: Any) -> bool:
    if isinstance(index, Tensor):
        return index.dim() <= 1 and not index.is_floating_point() and index.dtype != torch.bool
    return isinstance(index, int)


def stacked_parameters(module: nn.Module) -> list[str]:
    """Return the names of a module's own parameters that hold several matrices."""
    if isinstance(module, nn.modules.conv._ConvNd):
        return []
    found = module._parameters.items()
    return [name for name, one in found if one is not None and one.dim() == 3 and one.is_floating_point()]
