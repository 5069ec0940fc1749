r"""Two changes at one place as one change: what the algebra of each form allows.

A factor w on a change, and the scale of its composition, are put into its last linear map. Changes that are linear in
their last map add up by standing side by side:

.. math:: w_1 U_1 f(D_1 x) + w_2 U_2 f(D_2 x) = [w_1 U_1, w_2 U_2]\, f([D_1; D_2]\, x)

for any f that acts on each number by itself: low-rank maps, bottlenecks, and the heads of a multi-head parallel
adapter. A softmax does not; there the joined keys of two prefixes are both prefixes at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from unipetl.arithmetic.expertwise import Values
from unipetl.arithmetic.term import Part, rebuilt
from unipetl.composition import Add, Gate, Multiply
from unipetl.errors import CombinationError
from unipetl.forms import Bottleneck, HeadAttention, LowRank, Prompt, Rescale


def scaled(part: Part, weight: float) -> Part:
    """Return ``weight`` times a change, as a change with composition scale 1.

    Raises:
        CombinationError: the change is gated, or of an unknown form: no multiple of it exists.
    """
    one = part.modification
    form, composition = one.form, one.composition
    if isinstance(form, Rescale) and isinstance(composition, Multiply):
        places = {place: {"factor": 1 + weight * (values["factor"] - 1)} for place, values in part.places.items()}
        return Part(one, places)
    if isinstance(composition, Gate):
        if weight == 1.0:
            return part
        raise CombinationError(
            f"{named(part)}: {weight:g} times a gated change is no change of that kind: its keys share the softmax "
            "with the text's own. concatenate() puts prefixes and prompts beside each other."
        )
    if not isinstance(composition, Add) or _last_map(part) is None:
        raise CombinationError(f"{named(part)}: the arithmetic does not know the form {form.tag!r}.")
    names = _last_map(part) or ()
    places = {}
    for place, values in part.places.items():
        scale = values["scale"] if composition.scale == "learned" else float(composition.scale)
        rest = {name: value for name, value in values.items() if name != "scale"}
        factor = scale * weight
        changed = {name: rest[name] * factor for name in names if name in rest}
        places[place] = rest | (changed if not _is_one(factor) else {})
    return Part(rebuilt(one, composition=Add()), places)


def _is_one(factor: float | Tensor) -> bool:
    return isinstance(factor, float) and factor == 1.0


def _last_map(part: Part) -> tuple[str, ...] | None:
    """Return the parameters in which a change is linear."""
    form = part.modification.form
    if isinstance(form, LowRank):
        return ("up",)
    if isinstance(form, Bottleneck):
        return ("layer_norm.weight", "layer_norm.bias") if form.layer_norm == "out" else ("up", "up_bias")
    return ("value",) if isinstance(form, HeadAttention) else None


def key_of(part: Part) -> tuple[Any, ...] | None:
    """Return what two changes must have in common to be joined into one; None if no two of this kind can be."""
    one = part.modification
    form = one.form
    where = (str(one.representation.plain()), str(one.insertion.plain()), one.composition.tag)
    if isinstance(form, LowRank):
        return (*where, "low_rank")
    if isinstance(form, Bottleneck) and form.layer_norm != "out":
        return (*where, "bottleneck", form.activation, form.gated, form.layer_norm)
    if isinstance(form, HeadAttention) and form.layer_norm == "none":
        gated = isinstance(one.composition, Gate)
        joins = form.activation == "relu" or gated
        return (*where, "heads", form.activation, form.scale_query) if joins else None
    if isinstance(form, (Rescale, Prompt)):
        return (*where, form.tag)
    return None


def joined(parts: Sequence[Part], *, product: bool) -> Part:
    """Return several changes of one key, each with composition scale 1, as one.

    Args:
        parts: in the order of stacking.
        product: whether factors are multiplied (stacking) or their differences from 1 added (a sum).
    """
    first = parts[0].modification
    if len(parts) == 1:
        return parts[0]
    if any(set(part.places) != set(parts[0].places) for part in parts):
        raise CombinationError(f"{named(parts[0])}: the attachments do not have it at the same places.")
    form = first.form
    forms: list[Any] = [part.modification.form for part in parts]
    places: dict[str, Values] = {}
    for place in parts[0].places:
        values = [part.places[place] for part in parts]
        if isinstance(form, Rescale):
            places[place] = {"factor": _factors([one["factor"] for one in values], product=product)}
        elif isinstance(form, Prompt):
            places[place] = {"prompt": torch.cat([one["prompt"] for one in values])}
        elif isinstance(form, HeadAttention):
            places[place] = {name: torch.cat([one[name] for one in values]) for name in ("key", "value")}
        elif isinstance(form, LowRank):
            places[place] = {
                "down": torch.cat([one["down"] for one in values]),
                "up": torch.cat([one["up"] for one in values], dim=1),
            }
        else:
            places[place] = _bottlenecks(values, forms)
    if isinstance(form, (HeadAttention, Prompt)):
        new: Any = form.model_copy(update={"length": sum(one.length for one in forms)} | _dropout(forms))
    elif isinstance(form, Rescale):
        new = form
    else:
        biased = (
            {"bias": any(one.bias for one in forms) or form.layer_norm == "in"} if isinstance(form, Bottleneck) else {}
        )
        new = form.model_copy(update={"rank": sum(one.rank for one in forms)} | biased | _dropout(forms))
    return Part(rebuilt(first, form=new), places)


def _dropout(forms: Sequence[Any]) -> dict[str, float]:
    """Dropout acts in training only; where it is not the same everywhere there is none."""
    found = {one.dropout for one in forms if hasattr(one, "dropout")}
    return {"dropout": found.pop() if len(found) == 1 else 0.0} if found else {}


def _factors(factors: Sequence[Tensor], *, product: bool) -> Tensor:
    result = factors[0]
    for factor in factors[1:]:
        result = result * factor if product else result + factor - 1
    return result


def _bottlenecks(values: Sequence[Values], forms: Sequence[Bottleneck]) -> Values:
    values = [_without_norm(one) for one in values] if forms[0].layer_norm == "in" else list(values)
    biased = any("up_bias" in one for one in values)
    result = {
        name: torch.cat([one[name] for one in values], dim=dim)
        for name, dim in (("down", 0), ("up", 1), ("gate", 0))
        if name in values[0]
    }
    if biased:
        for name, like in (("down_bias", "down"), ("gate_bias", "gate")):
            if like in result:
                result[name] = torch.cat([one.get(name, one[like].new_zeros(one[like].shape[0])) for one in values])
        ups = [one["up_bias"] for one in values if "up_bias" in one]
        result["up_bias"] = torch.stack(ups).sum(0)
    if forms[0].layer_norm == "in":
        width = result["down"].shape[1]
        result["layer_norm.weight"] = result["down"].new_ones(width)
        result["layer_norm.bias"] = result["down"].new_zeros(width)
    return result


def _without_norm(values: Values) -> Values:
    """Put an input layer norm's weight and bias into the maps that read it, so that two norms become one."""
    weight, shift = values["layer_norm.weight"], values["layer_norm.bias"]
    result = dict(values)
    for name in ("down", "gate"):
        if name in values:
            bias = values.get(f"{name}_bias", values[name].new_zeros(values[name].shape[0]))
            result[f"{name}_bias"] = bias + values[name] @ shift
            result[name] = values[name] * weight
    result.setdefault("up_bias", values["up"].new_zeros(values["up"].shape[0]))
    return result


def apart(parts: Sequence[Part]) -> tuple[Part, ...]:
    """Return changes that cannot be joined so that no two are the same modification: their scales are powers of two.

    A method holds a modification once; s and 1/s in the values, for s a power of two, change no bit of the result.
    """
    seen: list[Any] = []
    result = []
    for one in parts:
        part = one
        power = 1.0
        while part.modification in seen:
            power *= 2.0
            part = _with_scale(one, power)
        seen.append(part.modification)
        result.append(part)
    return tuple(result)


def _with_scale(part: Part, scale: float) -> Part:
    names = _last_map(part)
    if names is None or not isinstance(part.modification.composition, Add):
        raise CombinationError(f"{named(part)} stands there twice, and the two cannot be joined into one.")
    smaller = scaled(part, 1 / scale)
    return replace(smaller, modification=rebuilt(smaller.modification, composition=Add(scale=scale)))


def named(part: Part) -> str:
    """Return a change's name for messages."""
    one = part.modification
    return f"{one.form.tag} ({one.insertion.tag}, {one.composition.tag}) at {one.representation}"
