"""Calls for the contract on any model: a plain one, one with padding, the start of a text."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unipetl.architectures import Architecture, find_blocks
from unipetl.errors import ArchitectureError, first_line
from unipetl.inference import base_path
from unipetl.inference.inputs import example_inputs
from unipetl.inference.tracing import trace
from unipetl.testing.apart import is_no_room
from unipetl.testing.compare import loss_of, outputs
from unipetl.testing.laws.generation import generate


@dataclass(frozen=True)
class Calls:
    """Arguments of calls of one model.

    Attributes:
        plain: a call of two rows.
        padded: one with a padded row; None where the bare model itself is not indifferent to padding.
        start: what ``generate`` continues; None where the bare model does not generate alike with and without a cache.
        unused: parameters of the model that no gradient of the plain call reaches.
        skipped: what was left out because of the bare model: ``padding``, ``generation``.
    """

    plain: Mapping[str, Any]
    padded: Mapping[str, Any] | None = None
    start: Mapping[str, Any] | None = None
    unused: frozenset[str] = frozenset()
    skipped: tuple[str, ...] = ()


def calls_of(model: nn.Module, plain: Mapping[str, Any]) -> Calls:
    """Return the calls that can be made from a plain one.

    Raises:
        ArchitectureError: the bare model does not compute the same twice, or not twice at all.
    """
    try:
        first, second = outputs(model, plain).nan_to_num(), outputs(model, plain).nan_to_num()
    except Exception as error:
        if isinstance(error, TimeoutError) or is_no_room(error):
            raise
        raise ArchitectureError(f"it cannot be called again ({type(error).__name__}: {first_line(error)})") from error
    if not torch.equal(first, second):
        raise ArchitectureError("it draws random numbers in evaluation, so that no two results can be compared")
    padded, start = _padded(model, plain), _start(model, plain)
    able = getattr(model, "can_generate", None)
    skipped = ["padding"] if padded is None and "input_ids" in plain else []
    skipped += ["generation"] if start is None and callable(able) and able() else []
    return Calls(plain, padded, start, unused_parameters(model, plain), tuple(skipped))


def call_reaching(model: nn.Module, architecture: Architecture) -> tuple[dict[str, Any], Architecture]:
    """Return the arguments of a call that reaches the most stacks, and the table of those."""
    best: tuple[dict[str, Any], tuple[Any, ...]] | None = None
    for inputs in example_inputs(model, rows=2):
        try:
            seen = trace(model, inputs)
        except Exception:  # noqa: BLE001 - guessed inputs may fail in any way
            continue
        base = base_path(model)
        stacks = tuple(
            table
            for table in architecture.stacks
            if all(seen.first(block) is not None for block in find_blocks(model, base, table) or [])
        )
        if best is None or len(stacks) > len(best[1]):
            best = inputs, stacks
    if best is None:
        raise ArchitectureError("no call with two rows succeeds")
    tensors = {name: value for name, value in best[0].items() if isinstance(value, Tensor)}
    return tensors, Architecture(architecture.model_types, best[1])


def _padded(model: nn.Module, call: Mapping[str, Any]) -> dict[str, Any] | None:
    ids = call.get("input_ids")
    if not isinstance(ids, Tensor) or ids.shape[0] != 2:
        return None
    mask = torch.ones_like(ids)
    mask[1, -2:] = 0
    made = {**call, "attention_mask": mask}
    try:
        together = outputs(model, made)
        alone = outputs(model, {name: _row(value, mask, name) for name, value in made.items()})
        seen = (
            together[1:, : alone.shape[1]] if together.dim() > 2 and "decoder_input_ids" not in call else together[1:]
        )
        if torch.allclose(seen, alone, rtol=1e-6, atol=1e-6):
            return made
    except Exception:  # noqa: BLE001 - a model that takes no mask has no padding to check
        pass
    return None


def _row(value: Any, mask: Tensor, name: str) -> Any:
    if not isinstance(value, Tensor) or value.shape[0] != 2:
        return value
    along = value.dim() >= 2 and value.shape[1] == mask.shape[1] and not name.startswith("decoder")
    return value[1:, :-2] if along else value[1:]


def _start(model: nn.Module, call: Mapping[str, Any]) -> dict[str, Any] | None:
    able = getattr(model, "can_generate", None)
    if not callable(able) or not able():
        return None
    start = {name: value for name, value in call.items() if name not in ("use_cache", "decoder_input_ids")}
    try:
        plain = generate(model, start, use_cache=False)[1]
        cached = generate(model, start, use_cache=True)[1]
        if torch.allclose(plain, cached, rtol=1e-5, atol=1e-5):
            return start
    except Exception:  # noqa: BLE001 - models generate under conditions of their own
        pass
    return None


def unused_parameters(model: nn.Module, call: Mapping[str, Any]) -> frozenset[str]:
    """Return the parameters that no gradient reaches when all are trained, or only zeros.

    Raises:
        ArchitectureError: the model does not compute with gradients.
    """
    whole = copy.deepcopy(model).requires_grad_(True)
    try:
        torch.autograd.backward(loss_of(whole, call))
    except Exception as error:  # a model may fail in any way of its own
        raise ArchitectureError(
            f"it does not compute with gradients ({type(error).__name__}: {first_line(error)})"
        ) from error
    gradients = {name: parameter.grad for name, parameter in whole.named_parameters()}
    return frozenset(name for name, one in gradients.items() if one is None or not bool(one.any()))
