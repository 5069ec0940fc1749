r"""Activations that backward computes again: what is kept of them is a recipe, and not their values.

The gradient of a down-projection W x needs x. Often x is a cheap function of tensors that the frozen model keeps for
its own backward anyway: :math:`\mathrm{LN}(u)`, :math:`\sigma(u)`, or :math:`\sigma(u) \odot v`, where the function
that made x saved u and v. Then x need not be kept beside them: backward computes it from them once more, equal up to
rounding. (What autograd's functions save has documented names:
https://docs.pytorch.org/docs/stable/notes/autograd.html#saved-tensors.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

#: Attribute of an activation that holds its recipe, for all that read it.
RECIPE = "_unipetl_recipe"

Node = Any  # a torch.autograd.graph.Node; what it saved are attributes of each kind


@contextmanager
def recomputed(x: Tensor) -> Iterator[None]:
    """Let backward keep the recipe of ``x``, where it has one, instead of the values that functions in the block save.

    The values stay saved where somebody else looks after saved tensors (checkpoints, offloading), where code is
    compiled or transformed, and where it is not known how ``x`` was made.
    """
    recipe = _recipe(x)
    if recipe is None:
        yield
        return

    def pack(saved: Tensor) -> Any:
        if saved.data_ptr() != x.data_ptr() or saved.numel() != x.numel() or not saved.is_contiguous():
            return saved
        recipe.users += 1
        return _Packed(recipe, saved.shape)

    with torch.autograd.graph.saved_tensors_hooks(pack, _unpack):
        yield


class Recipe:
    """How to compute an activation again.

    Attributes:
        node: the function that made it, and saved what is needed.
        users: how often the values are still wanted in one backward; after the last time they are dropped.
    """

    def __init__(self, node: Node) -> None:
        self.node = node
        self.users = 0
        self._values: Tensor | None = None

    def values(self) -> Tensor:
        """Return the activation's values."""
        self.users -= 1
        values = self._values
        if values is None:
            with torch.no_grad():
                values = _made_by(self.node)
        self._values = values if self.users > 0 else None
        return values


@dataclass
class _Packed:
    recipe: Recipe
    shape: torch.Size


def _unpack(packed: Any) -> Tensor:
    return packed.recipe.values().reshape(packed.shape) if isinstance(packed, _Packed) else packed


def _recipe(x: Tensor) -> Recipe | None:
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return None
    node = x.grad_fn
    if node is None or type(x) is not Tensor or not x.is_contiguous() or x.device.type == "meta":
        return None
    found: Recipe | None = getattr(x, RECIPE, None)
    if found is not None and found.node is node:
        return found
    if _looked_after() or not _is_known(node):
        return None
    found = Recipe(node)
    setattr(x, RECIPE, found)
    _forget_factors(node)
    return found


def _forget_factors(node: Node) -> None:
    """Let a product forget the activation among its factors, as what the activation was made from is kept as well.

    In a gated FFN, whose down-projection reads ``σ(u) * v``, this leaves u and v.
    """
    if node.name() != "MulBackward0":
        return
    before = [function for function, _ in node.next_functions]
    for name, maker, other in (("self", before[0], before[1]), ("other", before[1], before[0])):
        if maker is not None and other is not None and maker.name() in _ACTIVATIONS and _is_known(maker):
            raw = getattr(node, f"_raw_saved_{name}")
            raw.register_hooks(lambda _, maker=maker: Recipe(maker), lambda recipe: recipe.values())


def _looked_after() -> bool:
    """Return whether somebody else packs saved tensors, or a functional transform is at work."""
    hooks = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)
    if hooks is None or hooks(True) is not None:
        return True
    return torch._C._functorch.peek_interpreter_stack() is not None


def _is_known(node: Node) -> bool:
    """Return whether the result of a function can be computed from what it, and those before it, have saved."""
    if node is None or node.name() not in _KNOWN:
        return False
    before = [function for function, _ in node.next_functions]
    saved, needed = _KNOWN[node.name()].saved, before[: _KNOWN[node.name()].before]
    if node.name() == "MulBackward0":  # saves a factor if the other one needs a gradient
        saved = tuple(name for name, other in (("self", before[1]), ("other", before[0])) if other is not None)
        needed = [] if len(saved) == 2 else [one for one in before if one is not None]
    return all(_is_plain(node, name) for name in saved) and all(map(_is_known, needed))


def _is_plain(node: Node, name: str) -> bool:
    """Return whether what was saved is there as it was, and not packed by somebody who may unpack it only once."""
    return isinstance(getattr(getattr(node, f"_raw_saved_{name}"), "data", None), Tensor)


def _made_by(node: Node) -> Tensor:
    return _KNOWN[node.name()].compute(node)


def _layer_norm(node: Node) -> Tensor:
    result = (node._saved_input - node._saved_result1) * node._saved_result2  # mean, 1/std: float32 at the least
    if node._saved_weight is not None:
        result = result * node._saved_weight
    if node._saved_bias is not None:
        result = result + node._saved_bias
    return result.to(node._saved_input.dtype)


def _product(node: Node) -> Tensor:
    before = [function for function, _ in node.next_functions]
    first = node._saved_self if before[1] is not None else _made_by(before[0])
    second = node._saved_other if before[0] is not None else _made_by(before[1])
    return torch.mul(first, second)


def _dropped_out(node: Node) -> Tensor:
    return _made_by(node.next_functions[0][0]) * node._saved_result1 * (1 / (1 - node._saved_p))


def _cast(node: Node) -> Tensor:
    return _made_by(node.next_functions[0][0]).to(node._input_metadata[0].dtype)


@dataclass(frozen=True)
class _Kind:
    """A function: how to compute its result, from what it saved, and from the results of how many before it."""

    compute: Callable[[Node], Tensor]
    saved: tuple[str, ...] = ()
    before: int = 0


_ACTIVATIONS = ("GeluBackward0", "SiluBackward0")

_KNOWN: dict[str, _Kind] = {
    "GeluBackward0": _Kind(
        lambda node: torch.nn.functional.gelu(node._saved_self, approximate=node._saved_approximate), ("self",)
    ),
    "SiluBackward0": _Kind(lambda node: torch.nn.functional.silu(node._saved_self), ("self",)),
    "ReluBackward0": _Kind(lambda node: node._saved_result, ("result",)),
    "TanhBackward0": _Kind(lambda node: node._saved_result, ("result",)),
    "SigmoidBackward0": _Kind(lambda node: node._saved_result, ("result",)),
    "RsqrtBackward0": _Kind(lambda node: node._saved_result, ("result",)),
    "NativeLayerNormBackward0": _Kind(_layer_norm, ("input", "result1", "result2")),
    "MulBackward0": _Kind(_product),
    "NativeDropoutBackward0": _Kind(_dropped_out, ("result1",), 1),
    "ToCopyBackward0": _Kind(_cast, (), 1),
}
