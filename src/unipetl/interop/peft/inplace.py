"""The model's own parameters in a PEFT file: heads (``modules_to_save``) and biases (``bias="all"``)."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Mapping, Sequence
from typing import get_args

import torch
from torch import Tensor, nn

from unipetl.attaching.state import CHILD
from unipetl.errors import InteropError, PlanError
from unipetl.interop.peft.names import OWN_HEADS, PREFIX, Places
from unipetl.interop.wanted import Own
from unipetl.method import Method, Trained
from unipetl.planning import plan

_GROUPS = tuple(group for group in get_args(Trained) if group != "all")


def read_own(places: Places, tensors: Mapping[str, Tensor], prefix: str = PREFIX) -> Own:
    """Return which of the model's own parameters a file holds, and the groups that these are.

    Values that are the model's own already are left out: PEFT saves a classifier whether it was trained or not.

    Raises:
        InteropError: a parameter is not in this model, or the parameters are no groups of ours.
    """
    own = _with_tied(places.model)
    values: dict[str, Tensor] = {}
    for key, value in tensors.items():
        if not key.startswith(prefix):
            raise InteropError(f"tensor {key!r} belongs to nothing that unipetl knows of this format.")
        path, _, last = re.sub(r"(\.base_layer)+\.", ".", key.removeprefix(prefix)).rpartition(".")
        if {"original_module", "modules_to_save"} & set(path.split(".")):
            continue  # PEFT's copies of what stands in the file under its own name
        name = f"{places.module(path)}.{last}"
        if name not in own or own[name].shape != value.shape:
            found = tuple(own[name].shape) if name in own else "none"
            raise InteropError(f"tensor {key!r} has shape {tuple(value.shape)}; the model's {name!r} has {found}.")
        values[name] = value
    changed = {name for name, value in values.items() if not torch.equal(own[name].cpu(), value.to(own[name].dtype))}
    if not changed:
        return Own((), False, {})
    groups, train_head, trained = _groups(places.model, changed)
    return Own(groups, train_head, {name: value for name, value in values.items() if name in trained})


def _with_tied(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the model's own parameters under all their names: a tied head has one of its own."""
    every = model.named_parameters(remove_duplicate=False)
    return {name: parameter for name, parameter in every if CHILD not in name.split(".")}


def _groups(model: nn.Module, wanted: Collection[str]) -> tuple[tuple[Trained, ...], bool, set[str]]:
    """Return the smallest choice of groups that trains every wanted parameter."""
    choices: list[tuple[int, int, tuple[Trained, ...], bool, set[str]]] = []
    for size in range(len(_GROUPS) + 1):
        for groups in itertools.combinations(_GROUPS, size):
            for train_head in (False, True):
                try:
                    made = plan(Method(train=groups), model, train_head=train_head)
                except PlanError:
                    continue
                trained = {name for name, _ in made.trained}
                if set(wanted) <= trained:
                    choices.append((len(trained), size, groups, train_head, trained))
    if not choices:
        every = {name for name, _ in plan(Method(train=("all",)), model).trained}
        first = sorted(set(wanted) & every or wanted)[0]
        raise InteropError(
            f"the file holds values of the model's own {first!r} and others, which together are no groups of "
            f"{', '.join(_GROUPS)}; unipetl trains a model's own parameters by these groups."
        )
    _, _, groups, train_head, trained = min(choices, key=lambda one: (one[0], one[1]))
    return groups, train_head, trained


def write_own(
    model: nn.Module, trained: Collection[str], own: Mapping[str, Tensor], wrapped: Collection[str], task: str | None
) -> tuple[dict[str, Tensor], list[str], bool]:
    """Return the tensors, ``modules_to_save`` and whether ``bias`` is ``all`` for parameters trained in place.

    Args:
        model: the model.
        trained: names of the parameters.
        own: the values of all of the model's own parameters.
        wrapped: modules that PEFT wraps; their biases have another name.
        task: PEFT's word for the task; for some, PEFT saves the head anyhow.

    Raises:
        InteropError: the format cannot say that exactly these are trained.
    """
    biases = {name for name in own if "bias" in name}
    modules = _whole_modules(model, set(trained))
    inside = {name for name in trained if any(name.startswith(f"{path}.") for path in modules)}
    rest = set(trained) - inside
    all_biases = bool(rest) and rest == biases - inside
    if rest and not all_biases:
        whole = _whole_modules(model, set(trained), norms=True)
        modules = whole
        rest = {name for name in trained if not any(name.startswith(f"{path}.") for path in whole)}
        if rest:
            raise InteropError(
                f"PEFT trains whole modules, or every bias; {sorted(rest)[0]!r} is trained here without the rest of "
                "its module."
            )
    heads = [
        path
        for path, module in model.named_modules()
        if path.endswith(OWN_HEADS.get(task or "", ())) and next(module.parameters(), None) is not None
    ]
    modules = sorted({*modules, *(path for path in heads if not any(path.startswith(f"{m}.") for m in modules))})
    refuse_wrong_ends(model, modules)
    tensors = {
        f"{PREFIX}{name}": value for name, value in own.items() if any(name.startswith(f"{path}.") for path in modules)
    }
    if all_biases:
        for name in rest:
            path, _, last = name.rpartition(".")
            tensors[f"{PREFIX}{path}.base_layer.{last}" if path in wrapped else f"{PREFIX}{name}"] = own[name]
    return tensors, modules, all_biases


def _whole_modules(model: nn.Module, trained: set[str], *, norms: bool = False) -> list[str]:
    """Return the outermost modules all of whose parameters are trained; norms, which are many, only if asked."""
    found: list[str] = []
    for path, module in model.named_modules():
        if not path or CHILD in path.split(".") or any(path.startswith(f"{one}.") for one in found):
            continue
        inner = [name for name, _ in module.named_parameters() if CHILD not in name.split(".")]
        whole = inner and all(f"{path}.{name}" in trained for name in inner)
        only_bias = all("bias" in name for name in inner)
        norm = "norm" in path.rpartition(".")[2].lower() or path.rpartition(".")[2].startswith("ln_")
        if whole and not only_bias and (norms or not norm):
            found.append(path)
    return found


def refuse_wrong_ends(model: nn.Module, modules: Sequence[str]) -> None:
    """Refuse names that PEFT would find in other modules too: it compares the ends of paths, letter by letter.

    Raises:
        InteropError: one of the names is the end of another module's path.
    """
    named = {path for path, _ in model.named_modules() if CHILD not in path.split(".")}
    for one in modules:
        others = sorted(path for path in named if path.endswith(one) and path not in modules)
        if others:
            raise InteropError(f"PEFT would also take {others[0]!r} for {one!r}: it compares the ends of paths.")
