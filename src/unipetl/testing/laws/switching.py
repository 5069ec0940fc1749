"""Switching changes what is computed, and no choice of the user's."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from unipetl.attaching import activate, attachments, routed
from unipetl.testing.compare import require


def keeps_flags(model: nn.Module, names: Sequence[str]) -> None:
    """Freeze every second tensor of every attachment and free every third of the model's own, switch, and look again.

    Args:
        model: a model with the attachments ``names``.
        names: their names.

    Raises:
        CheckError: a ``requires_grad`` is not what the user made it.
    """
    activate(model, None)
    own = {name: parameter for name, parameter in model.named_parameters() if ".unipetl." not in f".{name}"}
    for number, parameter in enumerate(own.values()):
        parameter.requires_grad_(number % 3 == 0)
    bare = {name: parameter.requires_grad for name, parameter in own.items()}
    chosen: dict[tuple[str, str], bool] = {}
    for one in attachments(model):
        for number, (key, tensor) in enumerate(sorted(one.tensors().items())):
            tensor.requires_grad_(number % 2 == 0)
            chosen[one.name, key] = number % 2 == 0
    for stack in (*names, None, list(names)[:1], None):
        activate(model, stack)
        _compare(model, chosen, f"after activate({stack!r})")
    with routed(model, [*names, None]):
        _compare(model, chosen, "inside routed()")
    now = {name: parameter.requires_grad for name, parameter in model.named_parameters() if name in bare}
    wrong = [name for name, flag in bare.items() if now[name] != flag]
    require(not wrong, f"with nothing active, requires_grad of {wrong[:3]} is not what it was.")


def _compare(model: nn.Module, chosen: dict[tuple[str, str], bool], when: str) -> None:
    found = {(one.name, key): value.requires_grad for one in attachments(model) for key, value in one.tensors().items()}
    wrong = [key for key, flag in chosen.items() if found[key] != flag]
    require(not wrong, f"{when}: requires_grad of {wrong[:3]} is not what the user chose.")
