r"""Activations that backward computes again: what is kept of them is a recipe, and not their values.

The gradient of a down-projection W x needs x. Often x is a cheap function of tensors that the frozen model keeps for
its own backward anyway: :math:`\mathrm{LN}(u)`, :math:`\sigma(u)`, or :math:`\sigma(u) \odot v`, where the function
that made x saved u and v. Then x need not be kept beside them: backward computes it from them once more, equal up to
rounding. (What autograd's functions save has documented names:
https://docs.pytorch.org/docs/stable/notes/autograd.html#saved-tensors.)

Since x is computed from what the function before it saved, that function's part of the graph must still be there:
``retain_graph`` is needed to go backward through it first and through a reader of x afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Node = Any  # a torch.autograd.graph.Node; what it saved are attributes of each kind

#: Key in a node's metadata of the recipe of its result, for all that read it.
RECIPE = "unipetl recipe"


class Recipe:
    """How often an activation's values are wanted in one backward, and the values while they are.

    It does not hold the function that made the activation, in whose metadata it lies.
    """

    def __init__(self) -> None:
        self.users = 0
        self._values: Tensor | None = None

    def values(self, node: Node) -> Tensor:
        """Return the activation's values, computed for the first user and dropped after the last."""
        self.users -= 1
        values = _again(node) if self._values is None else self._values
        self._values = values if self.users > 0 else None
        return values


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
    with torch.autograd.graph.saved_tensors_hooks(_packer(recipe, x.grad_fn, x.data_ptr(), x.numel()), _unpack):
        yield


def recipe_of(x: Tensor) -> Recipe | None:
    """Return the recipe that readers of ``x`` share, if they have one."""
    node: Node = x.grad_fn
    found: Recipe | None = None if node is None else node.metadata.get(RECIPE)
    return found


@dataclass(frozen=True)
class _Packed:
    """In place of x: the recipe, and the function that made it."""

    recipe: Recipe
    node: Node
    shape: torch.Size


@dataclass(frozen=True)
class _Kept:
    """Another tensor that was saved in the block, with its version, which nobody else compares any more."""

    value: Tensor
    version: int


def _packer(recipe: Recipe, node: Node, place: int, size: int) -> Callable[[Tensor], Any]:
    """Return a hook for saved tensors. It lives as long as they do, so it must not hold x."""

    def pack(saved: Tensor) -> Any:
        if saved.data_ptr() != place or saved.numel() != size or not saved.is_contiguous():
            return _Kept(saved, saved._version)
        recipe.users += 1
        return _Packed(recipe, node, saved.shape)

    return pack


def _unpack(packed: Any) -> Tensor:
    if isinstance(packed, _Packed):
        return packed.recipe.values(packed.node).reshape(packed.shape)
    assert isinstance(packed, _Kept)
    if packed.value._version != packed.version:
        raise RuntimeError(
            "one of the variables needed for gradient computation has been modified by an inplace operation: a tensor "
            f"of shape {list(packed.value.shape)} is at version {packed.value._version}; expected version "
            f"{packed.version} instead."
        )
    return packed.value


def _recipe(x: Tensor) -> Recipe | None:
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return None
    node: Node = x.grad_fn
    if node is None or type(x) is not Tensor or not x.is_contiguous() or x.device.type == "meta":
        return None
    if x._version or is_looked_after():  # changed in place it is not what the function made
        return None
    found = recipe_of(x)
    if found is None and _is_known(node, x.device):
        found = Recipe()
        node.metadata[RECIPE] = found
        _forget_factors(node, x.device)
    return found


def _forget_factors(node: Node, device: torch.device) -> None:
    """Let a product forget the activation among its factors, as what the activation was made from is kept as well.

    In a gated FFN, whose down-projection reads ``σ(u) * v``, this leaves u and v.
    """
    if node.name() != "MulBackward0":
        return
    for name, maker, saved in _factors(node):
        if not saved or maker is None or maker.name() not in _ACTIVATIONS or not _is_known(maker, device):
            continue
        raw = getattr(node, f"_raw_saved_{name}")
        if raw.data._version == 0:
            raw.register_hooks(lambda _, maker=maker: maker, _again)


def _factors(product: Node) -> tuple[tuple[str, Node, bool], ...]:
    """Return each factor's name, its maker, and whether it was saved: it is if the other one needs a gradient."""
    (first, _), (second, _) = product.next_functions
    return ("self", first, second is not None), ("other", second, first is not None)


def is_looked_after() -> bool:
    """Return whether somebody else packs saved tensors, or forbids it, or a functional transform is at work."""
    autograd: Any = torch._C._autograd
    hooks = getattr(autograd, "_top_saved_tensors_default_hooks", None)
    if hooks is None or hooks(True) is not None or not autograd._saved_tensors_hooks_is_enabled():
        return True
    return is_transformed()


def is_transformed() -> bool:
    """Return whether a functional transform (vmap, grad, jvp) is at work."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def _is_known(node: Node, device: torch.device) -> bool:
    """Return whether the result of a function can be computed from what it, and those before it, have saved."""
    if node is None or node.name() not in _KNOWN:
        return False
    before = [function for function, _ in node.next_functions]
    saved, needed = _KNOWN[node.name()].saved, before[: _KNOWN[node.name()].before]
    if node.name() == "MulBackward0":
        saved = tuple(name for name, _, is_saved in _factors(node) if is_saved)
        needed = [maker for _, maker, is_saved in _factors(node) if not is_saved]
    if not all(_is_plain(node, name, device) for name in saved):
        return False
    if node.name() == "NativeLayerNormBackward0" and not _is_exact_norm(node, device):
        return False
    return all(_is_known(one, device) for one in needed)


def _is_plain(node: Node, name: str, device: torch.device) -> bool:
    """Return whether what was saved is there as it was, and will be in backward.

    It is not if somebody has packed it, who may unpack it only once. Parts of a larger storage may be emptied and
    filled by whoever shards parameters.
    """
    value = getattr(getattr(node, f"_raw_saved_{name}"), "data", None)
    if not isinstance(value, Tensor) or value.device != device:
        return False
    return value.grad_fn is not None or not value._is_view() or isinstance(value, nn.Parameter)


def _is_exact_norm(node: Node, device: torch.device) -> bool:
    """Return whether a layer norm's mean and deviation are exact enough, and its weights plain parameters or none."""
    if node._raw_saved_result1.data.dtype not in (torch.float32, torch.float64):
        return False
    given = [getattr(getattr(node, f"_raw_saved_{name}"), "data", None) for name in ("weight", "bias")]
    return all(
        one is None or _is_plain(node, name, device) for one, name in zip(given, ("weight", "bias"), strict=True)
    )


def _again(node: Node) -> Tensor:
    """Return what a function made, computed again outside any graph and autocast."""
    with torch.no_grad(), torch.autocast(node._input_metadata[0].device.type, enabled=False):
        return _made_by(node)


def _made_by(node: Node) -> Tensor:
    return _KNOWN[node.name()].compute(node)


def _layer_norm(node: Node) -> Tensor:
    result = (node._saved_input - node._saved_result1).mul_(node._saved_result2)  # mean, 1/std: float32 at the least
    if node._saved_weight is not None:
        result.mul_(node._saved_weight)
    if node._saved_bias is not None:
        result.add_(node._saved_bias)
    return result.to(node._saved_input.dtype)


def _product(node: Node) -> Tensor:
    factors = [getattr(node, f"_saved_{name}") if saved else _made_by(maker) for name, maker, saved in _factors(node)]
    return torch.mul(*factors)


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
