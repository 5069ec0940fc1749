"""A check of one functional form, ours or anyone's, without a model."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from unipetl import axis
from unipetl.forms import Delta, Experts, Features, Form, Heads, Rescale, Shape, Tokens
from unipetl.testing.compare import close, require, same

#: Shapes with no two sizes equal that need not be.
SHAPES: dict[type, tuple[Shape, ...]] = {
    Features: (Features(6, 10), Features(6, 10)),
    Heads: (Heads(12, 4, 2, 3, 5), Heads(12, 4, 2, 3, 5)),
    Tokens: (Tokens(6),),
}
_ROWS, _POSITIONS, _DRAWS = 2, 3, 4


def check_form(form: Form) -> None:
    """Build ``form`` for a small place and check what every form promises.

    The promises: it is written and read back equal; its values depend on the generator alone, and all are set;
    it starts at zero change exactly if it says so; results have the right shape and the input's dtype, and a row
    does not depend on its neighbours; every parameter gets a gradient; the counts are right.

    Raises:
        CheckError: the message says which promise.
    """
    again = axis.read(form.plain(), (type(form),), "functional form")
    require(again == form, f"{form!r} reads back from its notation as {again!r}.")
    shapes = SHAPES[form.needs]
    deltas, shared = _build(form, shapes)
    _check_values(form, shapes, deltas, shared)
    _check_start(form, deltas[0], shapes[0])
    _scatter(deltas, shared)
    _check_results(form, deltas[0], shapes[0])
    _check_gradients(deltas, shared, shapes)
    _check_counts(form, shapes, deltas, shared)


def _build(form: Form, shapes: tuple[Shape, ...], seed: int = 0) -> tuple[list[Delta], Delta | None]:
    shared = form.build_shared(shapes)
    deltas = [form.build(shape, shared, index) for index, shape in enumerate(shapes)]
    for parameter in _parameters(deltas, shared).values():
        nn.init.constant_(parameter, float("nan"))
    for number, delta in enumerate([*deltas, *([] if shared is None else [shared])]):
        delta.reset(torch.Generator().manual_seed(seed + number))
        delta.eval()
    return deltas, shared


def _parameters(deltas: list[Delta], shared: Delta | None) -> dict[str, nn.Parameter]:
    modules = {str(index): delta for index, delta in enumerate(deltas)} | ({} if shared is None else {"shared": shared})
    return {f"{key}.{name}": p for key, module in modules.items() for name, p in module.named_parameters()}


def _check_values(form: Form, shapes: tuple[Shape, ...], deltas: list[Delta], shared: Delta | None) -> None:
    state = torch.get_rng_state()
    others = _parameters(*_build(form, shapes))
    require(torch.equal(state, torch.get_rng_state()), "reset draws from torch's global generator.")
    for name, parameter in _parameters(deltas, shared).items():
        require(bool(torch.isfinite(parameter).all()), f"reset leaves values of {name!r} unset.")
        require(parameter.dtype == torch.float32, f"{name!r} is {parameter.dtype} instead of float32.")
        same(others[name], parameter, f"{name!r} reset twice with one seed")


def _inputs(shape: Shape, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    if isinstance(shape, Heads):
        size: tuple[int, ...] = (_ROWS, shape.query_heads, _POSITIONS, shape.key_dim)
    else:
        assert not isinstance(shape, Experts)
        size = (_ROWS, _POSITIONS, shape.width if isinstance(shape, Tokens) else shape.in_features)
    return torch.randn(size, generator=generator).to(dtype)


def _apply(delta: Delta, shape: Shape) -> Callable[[Tensor], Tensor]:
    return (lambda x: delta(x, 0.5, 0.0)) if isinstance(shape, Heads) else delta


def _check_start(form: Form, delta: Delta, shape: Shape) -> None:
    with torch.no_grad():
        change = _apply(delta, shape)(_inputs(shape))
    neutral = 1.0 if isinstance(form, Rescale) else 0.0
    starts = bool(change.eq(neutral).all())
    require(
        starts == form.starts_at_zero,
        f"starts_at_zero is {form.starts_at_zero}, and the change before training is "
        f"{'' if starts else 'not '}{neutral:g} everywhere.",
    )


def _scatter(deltas: list[Delta], shared: Delta | None, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in _parameters(deltas, shared).values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.5)


def _check_results(form: Form, delta: Delta, shape: Shape) -> None:
    apply = _apply(delta, shape)
    with torch.no_grad():
        for dtype in (torch.float32, torch.float64, torch.bfloat16):
            x = _inputs(shape, dtype)
            result = apply(x)
            require(result.dtype == dtype, f"the change of {dtype} input is {result.dtype}.")
            require(bool(torch.isfinite(result).all()), f"the change of {dtype} input is not finite.")
        x, result = _inputs(shape), apply(_inputs(shape))
    if isinstance(form, Rescale):
        wanted: tuple[int, ...] = (shape.out_features,) if isinstance(shape, Features) else ()
    elif isinstance(shape, Tokens):
        wanted = (_ROWS, result.shape[1], shape.width)
        require(result.shape[1] > _POSITIONS, "the sequence did not become longer.")
    elif isinstance(shape, Heads):
        wanted = (_ROWS, shape.query_heads, _POSITIONS, shape.value_dim)
    else:
        assert isinstance(shape, Features)
        wanted = (_ROWS, _POSITIONS, shape.out_features)
    require(tuple(result.shape) == wanted, f"the change has shape {tuple(result.shape)} instead of {wanted}.")
    if not isinstance(form, Rescale):
        with torch.no_grad():
            close(apply(x[1:])[0], result[1], "one row alone against the row in a batch", 1e-5)


def _check_gradients(deltas: list[Delta], shared: Delta | None, shapes: tuple[Shape, ...]) -> None:
    parameters = _parameters(deltas, shared)
    if isinstance(shapes[0], Heads):  # the norm of its own query acts before the heads, in the attention
        parameters = {name: p for name, p in parameters.items() if ".layer_norm." not in name}
    silent = set(parameters)
    for seed in range(_DRAWS):  # a ReLU may be off for one draw
        _scatter(deltas, shared, seed)
        total = torch.zeros(())
        for delta, shape in zip(deltas, shapes, strict=True):
            total = total + _apply(delta, shape)(_inputs(shape)).pow(2).sum()
        torch.autograd.backward(total)
        for name, parameter in parameters.items():
            gradient, parameter.grad = parameter.grad, None
            require(gradient is not None, f"{name!r} gets no gradient.")
            assert gradient is not None
            require(bool(torch.isfinite(gradient).all()), f"{name!r} has a gradient that is not finite.")
            if bool(gradient.ne(0).any()):
                silent.discard(name)
    require(not silent, f"the gradient is zero for {_DRAWS} random values of {sorted(silent)}.")


def _check_counts(form: Form, shapes: tuple[Shape, ...], deltas: list[Delta], shared: Delta | None) -> None:
    with torch.device("meta"):
        meta_shared = form.build_shared(shapes)
        meta = [form.build(shape, meta_shared, index) for index, shape in enumerate(shapes)]
    for name, parameter in _parameters(meta, meta_shared).items():
        require(parameter.is_meta, f"{name!r} ignores the device it is built on, so that a plan would allocate it.")
        require(parameter.shape == _parameters(deltas, shared)[name].shape, f"{name!r} has another shape on meta.")
    for delta, shape in zip(deltas, shapes, strict=True):
        counted = form.paper_parameters(shape)
        require(counted >= 0, f"the paper's count is {counted}.")
        own = sum(parameter.numel() for parameter in delta.parameters())
        require(shared is not None or counted <= own, f"the paper's count is {counted}, and there are {own} values.")
