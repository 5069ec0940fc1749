"""What a file of another library describes: the changes it wants, and their values place by place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from unipetl.architectures import Site
from unipetl.attaching import Attachment, attach
from unipetl.errors import InteropError
from unipetl.method import Method, Modification, Trained


@dataclass(frozen=True)
class Wanted:
    """What a file describes.

    Attributes:
        modifications: the changes.
        values: name of a site -> name of a parameter of the form -> its values.
        rest: tensors of the file that belong to no change.
        shared: the parameters of what several sites share, by one of the sites' names.
    """

    modifications: tuple[Modification, ...]
    values: dict[str, dict[str, Tensor]]
    rest: dict[str, Tensor]
    shared: dict[str, dict[str, Tensor]] = field(default_factory=dict)


@dataclass(frozen=True)
class Own:
    """The model's own parameters that a method trains.

    Attributes:
        groups: the groups of parameters the method names.
        train_head: whether the task head is among them.
        values: name of a parameter in the model -> its value in the file.
    """

    groups: tuple[Trained, ...]
    train_head: bool
    values: dict[str, Tensor]


def modifications_of(sites: Sequence[Site], wanted: Mapping[str, Any], build: Any) -> tuple[Modification, ...]:
    """Return the fewest modifications that give every named site what is wanted there.

    Args:
        sites: every place of the model.
        wanted: name of a site -> anything that can be a key of a dictionary.
        build: (representation as plain data, what is wanted) -> modification.
    """
    found: list[Modification] = []
    for name in dict.fromkeys(site.representation for site in sites):
        here = [site for site in sites if site.representation == name]
        for one in dict.fromkeys(wanted[site.name] for site in here if site.name in wanted):
            chosen = [site for site in here if wanted.get(site.name) == one]
            found += [build(narrow, one) for narrow in _narrowed(name, here, chosen)]
    return tuple(found)


def _narrowed(name: str, here: Sequence[Site], chosen: Sequence[Site]) -> Iterable[dict[str, Any]]:
    if len(chosen) == len(here):
        yield {"name": name}
        return

    def group(site: Site) -> tuple[str, str | None, bool]:
        return site.stack.stack, site.kind, site.inside == "experts"

    for stack, kind, routed in dict.fromkeys(map(group, chosen)):
        among = [site for site in here if group(site) == (stack, kind, routed)]
        layers = {site.layer for site in chosen if group(site) == (stack, kind, routed)}
        narrow: dict[str, Any] = {"name": name, "stack": stack}
        if kind is not None:
            narrow["kind"] = kind
        if any(site.inside == "experts" for site in here):
            narrow["experts"] = routed
        if layers < {site.layer for site in among}:
            narrow["layers"] = sorted(layers)
        yield narrow


def attach_filled(model: nn.Module, wanted: Wanted, own: Own, name: str) -> Attachment:
    """Attach what a file describes, with its values; all or nothing.

    Raises:
        InteropError: a value has another shape than its place, or none.
        AttachError: the name is taken.
    """
    method = Method(modifications=wanted.modifications, train=own.groups)
    attachment = attach(model, method, name=name, train_head=own.train_head)
    try:
        _fill(attachment, wanted, own.values)
    except BaseException:
        attachment.detach()
        raise
    return attachment


def _fill(attachment: Attachment, wanted: Wanted, own: Mapping[str, Tensor]) -> None:
    """Copy the wanted values into a fresh attachment; ``own`` are those of the model's own parameters, by name.

    Raises:
        InteropError: a value has another shape than its place, or none.
    """
    tensors = attachment.tensors()
    filled: set[str] = set()
    with torch.no_grad():
        for one in attachment.plan.placements:
            where = one.site.name
            for part, value in wanted.values.get(where, {}).items():
                _copy(tensors, f"{one.key}/{part}", value, f"{where!r}: {part}")
                filled.add(where)
            if one.group is not None:
                for part, value in wanted.shared.get(where, {}).items():
                    _copy(tensors, f"shared/{one.group}/{part}", value, f"{where!r}: {part}")
                    filled.add(where)
        for name, value in own.items():
            tensors[f"model/{name}"].copy_(value)
    left = sorted({*wanted.values, *wanted.shared} - filled)
    if left:
        raise InteropError(f"the values at {left[0]!r} found no place.")


def _copy(tensors: Mapping[str, Tensor], key: str, value: Tensor, what: str) -> None:
    if key not in tensors or tensors[key].shape != value.shape:
        needed = f"the model needs {tuple(tensors[key].shape)}" if key in tensors else "the model has no such values"
        raise InteropError(f"{what} has shape {tuple(value.shape)}; {needed}.")
    tensors[key].copy_(value)
