"""(IA)^3 folders: ``ia3_l`` is (out, 1) on a projection's result, (1, in) on the argument of a feed-forward module."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from unipetl.attaching.state import Record
from unipetl.composition import Multiply
from unipetl.errors import InteropError
from unipetl.folding.linear import rows
from unipetl.forms import Rescale
from unipetl.forms.rescale import RescaleDelta
from unipetl.insertion import Sequential
from unipetl.interop.peft.files import Folder
from unipetl.interop.peft.names import PREFIX, Places, features_of, matches, short_names
from unipetl.interop.wanted import Wanted, modifications_of
from unipetl.method import Modification

_ENDING = ".ia3_l"


def read(folder: Folder, places: Places) -> Wanted:
    """Return what an (IA)^3 folder describes.

    Raises:
        InteropError: it names modules that are no places of ours, or a tensor is missing or misshapen.
    """
    values: dict[str, dict[str, Tensor]] = {}
    rest: dict[str, Tensor] = {}
    found: set[str] = set()
    for key, value in folder.tensors.items():
        if not key.endswith(_ENDING):
            rest[key] = value
            continue
        path = places.module(key.removeprefix(PREFIX).removesuffix(_ENDING))
        found.add(path)
        for name, factor in _factors(places, path, value).items():
            values[name] = {"factor": factor}
    targets = folder.config.get("target_modules") or []
    wanted = {path for path in places.results if matches(targets, path)}
    if not values or wanted - found:
        missing = sorted(wanted - found) or ["every module"]
        raise InteropError(f"{str(folder.path)!r}: {missing[0]!r} has no factors in the file.")

    def build(representation: dict[str, Any], _: object) -> Modification:
        return Modification(
            representation=representation, form=Rescale(), insertion=Sequential(), composition=Multiply()
        )

    return Wanted(modifications_of(places.sites, dict.fromkeys(values, True), build), values, rest)


def _factors(places: Places, path: str, value: Tensor) -> dict[str, Tensor]:
    if path not in places.results:
        raise InteropError(f"(IA)^3 of {path!r}: no representation of the design space.")
    inner, outer = features_of(places.model, path)
    if value.shape == (1, inner) and path in places.arguments:
        return {places.arguments[path][0].name: value.flatten()}
    if value.shape == (1, inner) and inner != 1:
        raise InteropError(f"(IA)^3 rescales what {path!r} reads, which is no representation of the design space.")
    if value.shape != (outer, 1):
        raise InteropError(f"the factors of {path!r} have shape {tuple(value.shape)}, and the module {outer} features.")
    sites = places.results[path]
    return {
        site.name: value.flatten()[rows(site.value, outer)]
        for site in sites
        if len(sites) == 1 or bool((value.flatten()[rows(site.value, outer)] != 1).any()) or bool((value == 1).all())
    }


def write(record: Record, places: Places) -> tuple[dict[str, Any], dict[str, Tensor], set[str]]:
    """Return config, tensors and the wrapped modules of an attachment's factors.

    Raises:
        InteropError: a change is no rescaling of a projection, or a module has two.
    """
    results: dict[str, Tensor] = {}
    arguments: dict[str, Tensor] = {}
    for one in record.plan.placements:
        site, delta = one.site, record.changes[one.key].delta
        path = site.value.module
        if not isinstance(delta, RescaleDelta) or path not in places.results:
            raise InteropError(
                f"{one.key!r}: PEFT's (IA)^3 rescales projections' results, or what they read; this is a "
                f"{one.modification.form.tag!r} at {site.representation!r}."
            )
        factor = delta.factor.detach()
        if site in places.arguments.get(path, ()):
            arguments[path] = factor[None, :]
            continue
        if site not in places.results[path]:
            raise InteropError(f"{one.key!r}: {site.representation!r} is no projection's result.")
        outer = features_of(places.model, path)[1]
        whole = results.setdefault(path, torch.ones(outer, 1, dtype=factor.dtype, device=factor.device))
        whole[rows(site.value, outer).to(factor.device), 0] = factor
    both = sorted(set(results) & set(arguments))
    if both:
        raise InteropError(f"PEFT has one vector for each module, and {both[0]!r} is rescaled on both sides.")
    targets = {**results, **arguments}
    inner = _feed_forward_names(places, arguments, results)
    names = sorted({*(short_names(places.model, results) if results else ()), *inner})
    config: dict[str, Any] = {
        "peft_type": "IA3", "target_modules": names, "feedforward_modules": inner, "init_ia3_weights": True,
        "fan_in_fan_out": places.fan_in_fan_out(targets),
    }  # fmt: skip
    return config, {f"{PREFIX}{path}{_ENDING}": value for path, value in targets.items()}, set(targets)


def _feed_forward_names(places: Places, arguments: dict[str, Tensor], results: dict[str, Tensor]) -> list[str]:
    """PEFT compares the ends of paths, letter by letter; a full path is its own end."""
    if not arguments:
        return []
    found = short_names(places.model, arguments)
    if any(path.endswith(one) for one in found for path in results):
        found = sorted(arguments)
    wrong = [path for path in results if any(path.endswith(one) for one in found)]
    if wrong:
        raise InteropError(f"PEFT would take {wrong[0]!r} for a feed-forward module: it compares the ends of paths.")
    return found
