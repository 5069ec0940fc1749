"""Detaching gives back the model as it was: values, flags, modules, hooks, attributes and results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unipetl.attaching import attach, detach
from unipetl.attaching.install import is_own_hook
from unipetl.method import Method
from unipetl.testing.compare import Call, loss_of, outputs, require, same, scatter

#: Attributes of a module that hold its hooks.
HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)


@dataclass(frozen=True)
class Snapshot:
    """Everything about a model that a user could see, at one moment."""

    values: dict[str, Tensor]
    flags: dict[str, bool]
    modules: dict[str, int]
    hooks: dict[str, tuple[str | int, ...]]
    attributes: dict[str, frozenset[str]]
    plain: dict[str, int]
    modes: dict[str, bool]

    @classmethod
    def of(cls, model: nn.Module) -> Snapshot:
        """Take one."""
        modules = dict(model.named_modules(remove_duplicate=False))
        return cls(
            values={name: value.clone() for name, value in model.state_dict().items()},
            flags={name: parameter.requires_grad for name, parameter in model.named_parameters()},
            modules={name: id(module) for name, module in modules.items()},
            hooks={f"{name}.{kind}": _hooks(module, kind) for name, module in modules.items() for kind in HOOKS},
            attributes={name: frozenset(vars(module)) for name, module in modules.items()},
            plain={
                # views of configs and what stands before a forward are made anew; what a view shows is the model's
                f"{name}.{key}": id(type(value) if is_own_hook(value) else getattr(value, "_unipetl_config", value))
                for name, module in modules.items()
                for key, value in vars(module).items()
                if key == "config" or callable(value)
            },
            modes={name: module.training for name, module in modules.items()},
        )

    def require_unchanged(self, model: nn.Module, when: str) -> None:
        """Compare with the model as it is now.

        Raises:
            CheckError: it differs; the message names the first difference.
        """
        now = Snapshot.of(model)
        for part in ("modules", "hooks", "attributes", "plain", "flags", "modes"):
            before, after = getattr(self, part), getattr(now, part)
            wrong = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
            require(not wrong, f"{when}: {part} of {wrong[:3]} are not what they were.")
        require(list(self.values) == list(now.values), f"{when}: the state dict has other keys or another order.")
        for name, value in self.values.items():
            same(now.values[name], value, f"{when}: {name}")


def _hooks(module: nn.Module, kind: str) -> tuple[str | int, ...]:
    """The hooks in their order: of ours the type, for they are made anew; of others the number, which is a handle."""
    numbers = getattr(module, kind)
    if not numbers:  # nearly always
        return ()
    ours = {n: hook for found in (module._forward_hooks, module._forward_pre_hooks) for n, hook in found.items()}
    return tuple(
        type(ours[number]).__name__ if number in ours and is_own_hook(ours[number]) else number for number in numbers
    )


def detaches_exactly(model: nn.Module, method: Method | str, call: Call, **attaching: Any) -> None:
    """Attach, compute, learn, detach, and compare everything.

    Raises:
        CheckError: the law does not hold.
    """
    bare = outputs(model, call)
    before = Snapshot.of(model)  # after a call, in which a model may note things of its own
    attachment = scatter(attach(model, method, **attaching))
    loss = loss_of(model, call)
    if loss.requires_grad:
        torch.autograd.backward(loss)
    with torch.no_grad():
        for tensor in attachment.tensors().values():
            tensor.add_(0.1)
    detach(model)
    before.require_unchanged(model, "after detaching")
    same(outputs(model, call), bare, "the result after detaching")
    left = [name for name, parameter in model.named_parameters() if parameter.grad is not None]
    require(not left, f"after detaching, gradients are left on {left[:3]}.")
