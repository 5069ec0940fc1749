"""Axis 3, *modified representation*: which hidden vector h of the frozen model is changed.

Source: He et al. 2022, section 3.2 (https://arxiv.org/abs/2110.04366). The names are places every
transformer layer has; an architecture's table says where they are in a concrete model.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, StrictBool, field_validator

from unipetl.axis import Axis, refuse_truth
from unipetl.errors import MethodError, unknown

Kind = Literal["self", "cross"]

#: Every representation, innermost first. The order is the order of the computation inside a layer: a
#: change to an outer representation sees the changes to the inner ones.
NAMES: dict[str, str] = {
    "embedding": "the embedding's result; for patches and sound, that of the last map before the layers",
    "input": "the token vectors that enter the first layer",
    "attention.query": "the query projection's result",
    "attention.key": "the key projection's result",
    "attention.value": "the value projection's result",
    "attention.heads": "the heads' results, before the output projection",
    "attention.output": "the output projection's result",
    "attention": "the attention sub-layer's result",
    "ffn.up": "the first FFN projection's result",
    "ffn.gate": "the gate projection's result, in gated FFNs",
    "ffn.hidden": "the FFN's inner activation, which the last projection reads",
    "ffn.down": "the last FFN projection's result",
    "ffn": "the FFN sub-layer's result",
    "ffn.residual": "the residual stream with the FFN's result added, before any norm that follows",
    "block": "the layer's output",
}

#: The representations that are the result of one linear map each, in the same order.
PROJECTIONS = (
    "attention.query",
    "attention.key",
    "attention.value",
    "attention.output",
    "ffn.up",
    "ffn.gate",
    "ffn.down",
)


def rank(name: str) -> int:
    """Return the place of ``name`` in the order of the computation inside a layer."""
    return list(NAMES).index(name)


def _layers(value: Any) -> Any:
    if not isinstance(value, (list, tuple, set, range)):
        return value
    layers = [refuse_truth(layer) for layer in value]
    return tuple(sorted(set(layers))) if all(type(layer) is int for layer in layers) else value


def _experts(value: Any) -> Any:
    return value if isinstance(value, bool) else _layers(value)


class Representation(Axis):
    """One representation, optionally narrowed to a stack, a kind of attention and some layers.

    Args:
        name: one of [NAMES][unipetl.representation.NAMES].
        stack: such as ``encoder`` or ``decoder`` (or ``vision``, ``text`` in a model that has them); None means all.
        kind: ``self`` or ``cross`` attention; None means both (only for ``attention...``).
        layers: indices counted from 0 in each stack, negative ones from its end; None means all.
        experts: in a mixture of experts ``true`` means the experts alone, ``false`` all but them (dense FFNs, shared
            experts), and numbers these experts alone; None means all. Only for ``ffn.up`` to ``ffn.down``.
        optional: skip it where the model has no such place, instead of refusing (a gate in FFNs without one).
    """

    axis: ClassVar[str] = "representation"
    tag: ClassVar[str] = "representation"

    name: str
    stack: str | None = None
    kind: Kind | None = None
    layers: Annotated[tuple[int, ...] | None, BeforeValidator(_layers)] = None
    experts: Annotated[StrictBool | tuple[int, ...] | None, BeforeValidator(_experts)] = None
    optional: bool = False

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in NAMES:
            raise ValueError(unknown("representation", name, NAMES))
        return name

    @field_validator("stack")
    @classmethod
    def _plain(cls, stack: str | None) -> str | None:
        if stack is not None and not re.fullmatch("[a-z][a-z0-9_]*", stack):
            raise ValueError(f"a stack has a name in small letters, such as 'encoder' or 'decoder'; found {stack!r}")
        return stack

    @field_validator("layers")
    @classmethod
    def _some(cls, layers: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if layers == ():
            raise ValueError("an empty tuple of layers selects nothing; leave it out to select every layer")
        return layers

    @field_validator("experts")
    @classmethod
    def _numbered(cls, experts: bool | tuple[int, ...] | None) -> bool | tuple[int, ...] | None:
        if experts == ():
            raise ValueError("an empty tuple of experts selects nothing; leave it out to select every expert")
        if isinstance(experts, tuple) and min(experts) < 0:
            raise ValueError("experts are counted from 0")
        return experts

    def plain(self) -> Any:
        """Return the name, or a mapping with the narrowing fields."""
        fields = self.model_dump(mode="json", exclude_defaults=True)
        return fields["name"] if len(fields) == 1 else fields

    def __str__(self) -> str:
        """Return for example ``attention.query [decoder cross, layers 0 1]``."""
        narrowed: list[str] = [part for part in (self.stack, self.kind) if part]
        if self.layers is not None:
            narrowed.append("layers " + ",".join(map(str, self.layers)))
        if isinstance(self.experts, tuple):
            narrowed.append("experts " + ",".join(map(str, self.experts)))
        elif self.experts is not None:
            narrowed.append("experts" if self.experts else "no experts")
        return f"{self.name} [{' '.join(narrowed)}]" if narrowed else self.name


def read_representation(value: Any) -> Representation:
    """Return the representation written as ``value``: an object, a name, or a mapping."""
    if isinstance(value, Representation):
        return value
    if isinstance(value, str):
        return Representation(name=value)
    if isinstance(value, dict) and all(isinstance(name, str) for name in value):
        return Representation(**value)
    raise MethodError(f"representation: expected a name or a mapping, found {value!r}.")
