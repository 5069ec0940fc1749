"""The experts of a mixture as places of their own, which is all that the arithmetic needs to know of them.

A site that holds all experts has every parameter of the form once, with the experts' axis in front. An expert's change
depends on its own slice alone, so each slice is a place: what is exact at a place is exact at every expert.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from unipetl.errors import CombinationError
from unipetl.method import Modification

#: Name of a parameter of a form -> its values.
Values = dict[str, Tensor]

#: What stands before the names of parameters that have the experts' axis, and between a site and its expert's number.
_EACH, _EXPERT = "each.", " expert "


def one_by_one(one: Modification, sites: Mapping[str, Values]) -> dict[str, Values]:
    """Return the values of a modification by place, experts apart.

    Args:
        one: the modification, which numbers the experts if it does not mean all.
        sites: the values by site; parameters of experts are (experts, ...) and called ``each.<name>``.

    Raises:
        CombinationError: there are values of another number of experts than the modification says.
    """
    found: dict[str, Values] = {}
    for site, values in sites.items():
        stacked = {name.removeprefix(_EACH): value for name, value in values.items() if name.startswith(_EACH)}
        if not stacked:
            found[site] = values
            continue
        common = {name: value for name, value in values.items() if not name.startswith(_EACH)}  # a learned scale
        chosen, slots = one.representation.experts, len(next(iter(stacked.values())))
        numbers = chosen if isinstance(chosen, tuple) else tuple(range(slots))
        if any(len(value) != len(numbers) for value in stacked.values()):
            raise CombinationError(
                f"{site!r}: the method changes {len(numbers)} experts, and its values are of {slots}."
            )
        for slot, number in enumerate(numbers):
            found[f"{site}{_EXPERT}{number}"] = {name: value[slot] for name, value in stacked.items()} | common
    return found


def together(places: Mapping[str, Values]) -> dict[str, Values]:
    """Return the values by site, as a saved file has them: [one_by_one][] undone."""
    found: dict[str, Values] = {}
    apart: dict[str, list[tuple[int, Values]]] = {}
    for place, values in places.items():
        site, expert, number = place.partition(_EXPERT)
        if expert:
            apart.setdefault(site, []).append((int(number), values))
        else:
            found[site] = values
    for site, experts in apart.items():
        ordered = [values for _, values in sorted(experts, key=lambda one: one[0])]
        found[site] = {
            name if name == "scale" else f"{_EACH}{name}": value if name == "scale" else _stacked(ordered, name)
            for name, value in ordered[0].items()
        }
    return found


def _stacked(experts: list[Values], name: str) -> Tensor:
    return torch.stack([values[name] for values in experts])
