"""A method is data: modifications of hidden representations, and the pretrained parameters it trains.

One [Modification][] is one point of the paper's four axes (He et al. 2022, table 1). A [Method][] is any
tuple of them; mixing two methods is adding them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, InstanceOf, ValidationError

from unipetl import axis
from unipetl.composition import COMPOSITIONS, Add, Composition
from unipetl.errors import MethodError, NotationError, unknown
from unipetl.forms import FORMS, Form
from unipetl.insertion import INSERTIONS, Insertion, Parallel
from unipetl.representation import NAMES, Representation, read_representation

#: Groups of pretrained parameters a method may train beside its own.
TRAINABLE: dict[str, str] = {
    "all": "every parameter (full fine-tuning)",
    "bias": "every parameter whose name contains 'bias' (BitFit)",
    "norm": "every parameter of a norm",
    "embeddings": "the token embeddings",
    "head": "the task head; in language models the output projection",
}
Trained = Literal["all", "bias", "norm", "embeddings", "head"]


def _form(value: Any) -> Form:
    return axis.read(value, FORMS, "functional form")


def _insertion(value: Any) -> Insertion:
    return axis.read(value, INSERTIONS, "insertion")


def _composition(value: Any) -> Composition:
    return axis.read(value, COMPOSITIONS, "composition")


class Modification(BaseModel):
    """One point of the design space: functional form × insertion × representation × composition.

    Each axis takes an object or its notation: ``Modification(representation="ffn", form={"bottleneck":
    {"rank": 16}}, insertion="parallel", composition={"add": {"scale": 4}})``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    representation: Annotated[InstanceOf[Representation], BeforeValidator(read_representation)]
    form: Annotated[InstanceOf[Form], BeforeValidator(_form)]
    insertion: Annotated[InstanceOf[Insertion], BeforeValidator(_insertion)] = Parallel()
    composition: Annotated[InstanceOf[Composition], BeforeValidator(_composition)] = Add()

    def __init__(self, **axes: Any) -> None:
        """Check the four values; a wrong one raises [MethodError][unipetl.errors.MethodError]."""
        try:
            super().__init__(**axes)
        except ValidationError as error:
            raise MethodError(axis.explain(error, "modification", type(self))) from None

    def plain(self) -> dict[str, Any]:
        """Return the modification as JSON-ready data."""
        return {name: getattr(self, name).plain() for name in type(self).model_fields}

    def row(self) -> dict[str, str]:
        """Return the modification as a row of the paper's table 1, in words and symbols."""
        reads = "x" if isinstance(self.insertion, Parallel) else "h"
        activation = str(getattr(self.form, "activation", ""))
        function = _FUNCTIONS.get(activation, activation)
        equation = type(self.form).equation
        if getattr(self.form, "gated", False):
            equation = equation.replace("σ(W_down · + b_down)", "(σ(W_gate · + b_gate) ⊙ (W_down · + b_down))")
        equation = equation.replace("·", reads).replace("σ", function).replace("f(", f"{function}(")
        if not getattr(self.form, "bias", True):
            equation = equation.replace(" + b_down", "").replace(" + b_gate", "").replace(" + b_up", "")
        return {
            "functional form": equation,
            "insertion": type(self.insertion).tag,
            "representation": str(self.representation),
            "composition": self.composition.symbols(),
        }


#: How activations are written in equations.
_FUNCTIONS = {"relu": "ReLU", "gelu": "GELU", "gelu_tanh": "GELU", "silu": "SiLU", "identity": "", "model": "σ"}


class Method(BaseModel):
    """A named or nameless method: what it changes, and which pretrained parameters it also trains.

    Args:
        modifications: any number of points of the design space.
        train: groups of pretrained parameters, of [TRAINABLE][unipetl.method.TRAINABLE].
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    modifications: tuple[InstanceOf[Modification], ...] = ()
    train: tuple[Trained, ...] = ()

    def __init__(self, **fields: Any) -> None:
        """Check the fields; a wrong one raises [MethodError][unipetl.errors.MethodError]."""
        fields = dict(fields)
        given = fields.get("modifications", ())
        if not isinstance(given, (list, tuple)):
            raise MethodError(f"method: 'modifications' must be a list, found {given!r}.")
        train = fields.get("train", ())
        fields["train"] = train = (train,) if isinstance(train, str) else train
        if not isinstance(train, (list, tuple)) or not all(isinstance(name, str) for name in train):
            raise MethodError(f"method: 'train' must be a list of names of {', '.join(TRAINABLE)}; found {train!r}.")
        fields["modifications"] = tuple(read_modification(one, place) for place, one in enumerate(given))
        for name in train:
            if name not in TRAINABLE:
                raise MethodError("method: " + unknown("group of trained parameters", name, TRAINABLE))
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise MethodError(axis.explain(error, "method", type(self))) from None

    def __add__(self, other: Method) -> Method:
        """Return the mix of two methods: every modification and trained group of both."""
        train = self.train + tuple(name for name in other.train if name not in self.train)
        return Method(modifications=self.modifications + other.modifications, train=train)

    def plain(self) -> dict[str, Any]:
        """Return the method as JSON-ready data, the notation that [from_plain][] reads."""
        data: dict[str, Any] = {"modifications": [one.plain() for one in self.modifications]}
        if self.train:
            data["train"] = list(self.train)
        return data

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> Method:
        """Return the method that ``data`` describes.

        Raises:
            MethodError: with the place and the near match of what is wrong.
        """
        if not isinstance(data, Mapping):
            raise MethodError(f"method: expected a mapping with 'modifications' and 'train', found {data!r}.")
        strange = [name for name in data if name not in cls.model_fields]
        if strange:
            raise MethodError("method: " + unknown("field", strange[0], cls.model_fields))
        return cls(**data)

    def to_yaml(self) -> str:
        """Return the method as YAML."""
        return yaml.safe_dump(self.plain(), sort_keys=False, default_flow_style=None, allow_unicode=True)

    @classmethod
    def from_yaml(cls, text: str) -> Method:
        """Return the method written in YAML or JSON.

        Raises:
            NotationError: the text is not YAML.
            MethodError: it is, and does not describe a method.
        """
        try:
            data = yaml.safe_load(text)
        except (yaml.YAMLError, RecursionError) as error:
            raise NotationError(f"method: this is not YAML: {error}") from None
        return cls.from_plain(data)

    def rows(self) -> list[dict[str, str]]:
        """Return the method's rows of the paper's table 1."""
        return [one.row() for one in self.modifications]

    def canonical(self) -> str:
        """Return one line of JSON that is equal for equal methods."""
        return json.dumps(self.plain(), sort_keys=True, separators=(",", ":"))


def read_modification(value: Any, place: int = 0) -> Modification:
    """Return the modification that ``value`` (an object or a mapping) denotes."""
    if isinstance(value, Modification):
        return value
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise MethodError(f"modifications[{place}]: expected a mapping of the four axes, found {value!r}.")
    try:
        return Modification(**value)
    except MethodError as error:
        raise MethodError(f"modifications[{place}]: {error}") from None


def json_schema() -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of a method's YAML and JSON notation."""
    representation = Representation.model_json_schema()
    representation["properties"]["name"]["enum"] = list(NAMES)
    modification = {
        "type": "object",
        "additionalProperties": False,
        "required": ["representation", "form"],
        "properties": {
            "representation": {"oneOf": [{"enum": list(NAMES)}, representation]},
            "form": axis.schema(FORMS),
            "insertion": axis.schema(INSERTIONS),
            "composition": axis.schema(COMPOSITIONS),
        },
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "unipetl method",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "modifications": {"type": "array", "items": modification},
            "train": {"type": "array", "items": {"enum": list(TRAINABLE)}},
        },
    }
