"""The model's own modules and parameters: everything but what attachments hang into it.

The walk does not enter what is hung in, so it takes as long with thirty attachments as with none.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

#: Name of the child module that holds the changes, in every module that has some.
CHILD = "unipetl"


def own_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield path and module like ``named_modules``, each module once, without those of attachments."""
    seen: set[int] = set()
    ahead = [("", model)]
    while ahead:  # no recursion: this is walked whenever values are put into a running model
        path, module = ahead.pop()
        if id(module) in seen:
            continue
        seen.add(id(module))
        yield path, module
        children = module._modules
        if children:
            dot = f"{path}." if path else ""
            ahead += [
                (dot + name, child) for name, child in reversed(children.items()) if child is not None and name != CHILD
            ]


def own_parameters(model: nn.Module, *, remove_duplicate: bool = True) -> dict[str, nn.Parameter]:
    """Return the model's own parameters like ``named_parameters``, without those of attachments.

    Args:
        model: any module.
        remove_duplicate: whether a parameter that stands in several places goes by its first name alone.
    """
    found: dict[str, nn.Parameter] = {}
    seen: set[int] = set()
    for path, module in own_modules(model):
        for name, parameter in module._parameters.items():
            if parameter is None or (remove_duplicate and id(parameter) in seen):
                continue
            seen.add(id(parameter))
            found[f"{path}.{name}" if path else name] = parameter
    return found
