"""One forward pass, watched: what every module read and gave, and what every attention was computed from.

The result of every linear map is cut loose from what came before (``detach``) and asked for a gradient. A gradient
taken anywhere later then reaches exactly the linear maps that act on it *directly*, column by column: this is how
the columns of a fused projection are told apart, however they are laid out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from unipetl.architectures.stacked import OnProduct, StackedMatrices, stacked_parameters
from unipetl.errors import AttachError
from unipetl.forms import Visit
from unipetl.inference.linear import is_linear

#: How modules of experts are called, or their classes.
EXPERTS = re.compile(r"expert|moe", re.IGNORECASE)


@dataclass(eq=False)
class Call:
    """One call of one module.

    Attributes:
        path: the module's name in the model.
        start, end: times, counted in module calls and returns.
        read: the first tensor among the arguments; ``gave`` the result, or the first of several.
        leaf: for a linear map, the result cut loose.
        visit: for a product with a stacked parameter, which experts made it; ``path`` then is the parameter's.
    """

    path: str
    module: nn.Module
    start: int
    end: int = -1
    read: Tensor | None = None
    gave: Tensor | None = None
    leaf: Tensor | None = None
    visit: Visit | None = None


@dataclass(eq=False)
class Attention:
    """One computation of attention.

    Attributes:
        path: the module whose code computed it.
        time: when.
        query, key, value: what the fused function was given, (..., heads, n, size) or the like; None elsewhere.
        weights: the probabilities, (..., n, m), where they were computed by a softmax of its own, and the ``scores``
            that it was taken of, and the last ``product`` of their size before: its first factor and its result.
        factor: what the fused function, or the product itself, multiplies q kᵀ by.
        rows: the number of queries n; ``columns`` the number of keys m.
        causal: whether the call said so.
    """

    path: str
    time: int
    query: Tensor | None = None
    key: Tensor | None = None
    value: Tensor | None = None
    weights: Tensor | None = None
    scores: Tensor | None = None
    product: tuple[Tensor, Tensor] | None = None
    factor: float = 1.0

    @property
    def rows(self) -> int:
        """The number of queries."""
        return self.query.shape[-2] if self.query is not None else self._weights.shape[-2]

    @property
    def columns(self) -> int:
        """The number of keys."""
        return self.key.shape[-2] if self.key is not None else self._weights.shape[-1]

    @property
    def _weights(self) -> Tensor:
        assert self.weights is not None
        return self.weights


@dataclass
class Trace:
    """Everything seen in one forward pass; ``calls`` are in the order in which they began.

    ``products`` are those of experts with the matrices they keep in one parameter.
    """

    calls: list[Call] = field(default_factory=list)
    products: list[Call] = field(default_factory=list)
    attentions: list[Attention] = field(default_factory=list)

    def first(self, path: str) -> Call | None:
        """Return the first call of a module, or None if it was not called."""
        return next((call for call in self.calls if call.path == path), None)

    def add(self, other: Trace, path: str) -> None:
        """Add what was seen of the module at ``path``, watched on its own."""
        later = max((call.end for call in self.calls), default=0) + 1
        for call in (*other.calls, *other.products):
            call.path = f"{path}.{call.path}" if call.path else path
            call.start, call.end = call.start + later, call.end + later
        for one in other.attentions:
            one.path, one.time = (f"{path}.{one.path}" if one.path else path), one.time + later
        self.calls = [call for call in self.calls if not f"{call.path}.".startswith(f"{path}.")] + other.calls
        self.attentions += other.attentions
        self.products = [one for one in self.products if not f"{one.path}.".startswith(f"{path}.")] + other.products

    def within(self, path: str) -> list[Call]:
        """Return the calls of what is inside the first call of the module at ``path``, itself included."""
        outer = self.first(path)
        if outer is None:
            return []
        inside = f"{path}." if path else ""
        return [c for c in self.calls if outer.start <= c.start <= outer.end and f"{c.path}.".startswith(inside)]


def trace(model: nn.Module, inputs: Mapping[str, Any]) -> Trace:
    """Run ``model(**inputs)`` once, in evaluation mode, and return what was seen.

    The model is as it was afterwards: hooks, modes, flags, gradients, what its modules note down during a call, and
    random numbers.
    """
    try:
        return _watched(model, inputs, products=True)
    except AttachError:  # experts that compute with their parameters in another way than by products
        return _watched(model, inputs, products=False)


def _watched(model: nn.Module, inputs: Mapping[str, Any], *, products: bool) -> Trace:
    watcher = _Watcher(products=products)
    devices = sorted({one.device.index for one in model.parameters() if one.device.type == "cuda"})
    same_random = torch.random.fork_rng(devices=devices)
    kept = _noting(model), watcher.watching(model), _evaluating(model), _frozen(model), same_random
    with ExitStack() as stack:
        for one in (*kept, torch.enable_grad(), watcher):
            stack.enter_context(one)
        model(**inputs)
    return watcher.trace


class _Watcher(TorchFunctionMode):
    def __init__(self, *, products: bool) -> None:
        super().__init__()
        self.trace = Trace()
        self.products = products
        self.open: list[Call] = []
        self.time = 0
        self.fused = 0
        self.copies: dict[int, Any] = {}
        self.product: tuple[Tensor, Tensor, float] | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not self.open:
            return func(*args, **kwargs)
        if func is torch.nn.functional.scaled_dot_product_attention:
            names = dict(zip(("query", "key", "value"), args, strict=False), **kwargs)
            seen = Attention(self.open[-1].path, self.time, *(names[one].clone() for one in ("query", "key", "value")))
            scale = names.get("scale", args[6] if len(args) > 6 else None)
            seen.factor = names["query"].shape[-1] ** -0.5 if scale is None else float(scale)
            self.trace.attentions.append(seen)
            self.fused += 1
            try:
                return func(*args, **kwargs)
            finally:
                self.fused -= 1
        result = func(*args, **kwargs)
        if func in SOFTMAX and not self.fused and isinstance(result, Tensor) and result.dim() >= 3:
            scores = args[0] if args else kwargs["input"]
            last = self.product
            seen = Attention(self._computing(), self.time, weights=result, scores=scores)
            if last is not None and last[1].numel() == scores.numel():
                seen.product, seen.factor = last[:2], last[2]
            self.trace.attentions.append(seen)
            return result.detach().requires_grad_(True).clone()
        if func in PRODUCTS and isinstance(result, Tensor) and result.requires_grad and result.dim() >= 3:
            self.product = first_factor(func, args, kwargs), result, float(kwargs.get("alpha", 1.0))
            return result.clone()  # which the model may change in place
        return result

    def _computing(self) -> str:
        """Return the module whose code is running; a softmax that is a module of its own is part of another's."""
        return next(
            call.path for call in reversed(self.open) if not isinstance(call.module, nn.Softmax) or not call.path
        )

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        handles = []
        try:
            for path, module in model.named_modules():
                if ".unipetl." in f".{path}.":
                    continue
                handles.append(
                    module.register_forward_pre_hook(self._enter(path, module), with_kwargs=True, prepend=True)
                )
                handles.append(module.register_forward_hook(self._leave))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, path: str, module: nn.Module) -> Any:
        expert = self.products and EXPERTS.search(f"{path}.{type(module).__name__}")
        stacked = stacked_parameters(module) if expert else []

        def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
            call = Call(path, module, self.time)
            call.read = self._kept(_first(args, kwargs))
            self.time += 1
            self.trace.calls.append(call)
            self.open.append(call)
            for name in stacked:
                weight = module._parameters[name]
                assert weight is not None
                module.__dict__[name] = StackedMatrices(weight, self._multiply(module, f"{path}.{name}"), name)

        return enter

    def _multiply(self, module: nn.Module, path: str) -> OnProduct:
        """Return what notes down every product with a stacked parameter, and cuts its result loose."""

        def multiply(x: Tensor, visit: Visit, compute: Callable[[Tensor], Tensor]) -> Tensor:
            call = Call(path, module, self.time, self.time + 1, read=self._kept(x), visit=visit)
            self.time += 2
            call.leaf = call.gave = compute(x).detach().requires_grad_(True)
            self.trace.products.append(call)
            return call.leaf.clone()

        return multiply

    def _leave(self, module: nn.Module, _: Any, output: Any) -> Any:
        call = self.open.pop()
        for name in module._parameters:
            module.__dict__.pop(name, None)  # a stand-in of _enter's
        call.end = self.time
        self.time += 1
        gave = _result(output)
        if gave is not None and is_linear(module) and isinstance(output, Tensor) and gave.is_floating_point():
            call.leaf = gave.detach().requires_grad_(True)
            call.gave = call.leaf
            return call.leaf.clone()
        call.gave = self._kept(gave)
        return None

    def _kept(self, tensor: Tensor | None) -> Tensor | None:
        """A copy in the same graph, as what comes later may change the tensor itself; it knows what it is a copy of.

        What passes unchanged through several modules is copied once: large images would fill the memory.
        """
        if tensor is None:
            return None
        state = None if tensor.is_inference() else (tensor._version, torch.is_grad_enabled())
        copy = self.copies.get(id(tensor))
        if copy is None or state is None or copy.source is not tensor or copy.state != state:
            copy = cast(Any, tensor.clone())
            copy.source, copy.state = tensor, state
            self.copies[id(tensor)] = copy
        return cast(Tensor, copy)


def same_object(first: Tensor | None, second: Tensor | None) -> bool:
    """Return whether what was read at one place is the very tensor that was given at another."""
    source = getattr(first, "source", None)
    return source is not None and source is getattr(second, "source", None)


#: The functions that compute a softmax.
SOFTMAX = {torch.nn.functional.softmax, torch.softmax, Tensor.softmax, torch.special.softmax}


#: The functions that multiply queries with keys.
PRODUCTS = {
    torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm, torch.baddbmm, Tensor.baddbmm,
}  # fmt: skip


def first_factor(func: Any, args: Any, kwargs: Mapping[str, Any]) -> Tensor:
    """Return the first factor of a call of one of [PRODUCTS][unipetl.inference.tracing.PRODUCTS]."""
    place, name = (1, "batch1") if func in (torch.baddbmm, Tensor.baddbmm) else (0, "input")
    factor: Tensor = args[place] if len(args) > place else kwargs[name]
    return factor


def _first(args: Any, kwargs: Any) -> Tensor | None:
    found: Any = next((one for one in args if isinstance(one, Tensor)), None)
    if found is None:
        found = kwargs.get("hidden_states")
    if found is None:
        found = next((one for one in kwargs.values() if isinstance(one, Tensor) and one.is_floating_point()), None)
    return found if isinstance(found, Tensor) else None


def _result(output: Any) -> Tensor | None:
    if isinstance(output, Tensor):
        return output
    if isinstance(output, (tuple, list)) and output and isinstance(output[0], Tensor):
        return output[0]
    if isinstance(output, Mapping):
        return next((one for one in output.values() if isinstance(one, Tensor)), None)
    return None


@contextmanager
def _noting(model: nn.Module) -> Iterator[None]:
    """Undo what modules note down in attributes and buffers: positions of the last call, losses of a router."""
    notes = [(one, dict(vars(one)), dict(one._buffers)) for one in model.modules()]
    try:
        yield
    finally:
        for module, attributes, buffers in notes:
            vars(module).clear()
            vars(module).update(attributes)
            module._buffers.clear()
            module._buffers.update(buffers)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in modes:
            module.training = False
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Freeze the parameters while watching: no graph but the one between linear maps is wanted."""
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
