"""How a value on one of the four axes is written as plain data, and read back.

A value with no settings is its name (``parallel``); one with settings is a mapping with that name as
its only key (``{add: {scale: 4}}``). Reading is strict: unknown names and fields are refused with the
nearest known one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from unipetl.errors import MethodError, nearest, unknown


class Axis(BaseModel):
    """Immutable data with a ``tag``: its name in notation."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)

    axis: ClassVar[str]
    tag: ClassVar[str]

    def __init__(self, **settings: Any) -> None:
        """Check the settings; a wrong one raises [MethodError][unipetl.errors.MethodError]."""
        try:
            super().__init__(**settings)
        except ValidationError as error:
            raise MethodError(explain(error, f"{self.axis} {self.tag!r}", type(self))) from None

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        annotation = cls.model_fields[info.field_name].annotation if info.field_name else None
        kinds = {annotation, *get_args(annotation)}
        return refuse_truth(value) if kinds & {int, float} and bool not in kinds else value

    def plain(self) -> Any:
        """Return the value as JSON-ready data: ``tag`` or ``{tag: {field: value}}``."""
        fields = self.model_dump(mode="json", exclude_defaults=True)
        return {self.tag: fields} if fields else self.tag


def refuse_truth(value: Any) -> Any:
    """Return ``value``, unless it is true or false, which Python and pydantic would count as 1 and 0."""
    if isinstance(value, bool):
        raise ValueError("true and false are no value here")
    return value


A = TypeVar("A", bound=Axis)


def explain(error: ValidationError, where: str, model: type[BaseModel]) -> str:
    """Turn pydantic's report into one sentence per fault, with near matches for unknown fields."""
    faults = []
    for fault in error.errors():
        place = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            near = nearest(place, model.model_fields)
            hint = f" Did you mean {near!r}?" if near else ""
            faults.append(f"unknown field {place!r}.{hint} Fields: {', '.join(model.model_fields) or 'none'}.")
        elif fault["type"] == "missing":
            faults.append(f"field {place!r} is required.")
        else:
            faults.append(
                f"{place or 'value'}: {fault['msg'].removeprefix('Value error, ')} (found {fault['input']!r})."
            )
    return f"{where}: " + " ".join(faults)


def read(value: Any, options: Sequence[type[A]], axis: str) -> A:
    """Return the axis value that ``value`` (an object, a name, or ``{name: settings}``) denotes.

    Raises:
        MethodError: the name is unknown or its settings are wrong.
    """
    for option in options:
        if isinstance(value, option):
            return value
    if isinstance(value, Axis) and value.axis == axis:  # a third party's value needs no registration
        return value  # type: ignore[return-value]
    by_tag = {option.tag: option for option in options}
    if isinstance(value, str):
        tag: str = value
        settings: Any = {}
    elif isinstance(value, Mapping) and len(value) == 1:
        tag, settings = next(iter(value.items()))
        settings = {} if settings is None else settings
    else:
        raise MethodError(f"{axis}: expected a name or a mapping with one name as its key, found {value!r}.")
    if tag not in by_tag:
        raise MethodError(unknown(axis, tag, by_tag))
    if not isinstance(settings, Mapping) or not all(isinstance(name, str) for name in settings):
        raise MethodError(f"{axis} {tag!r}: its settings must be a mapping of field to value, found {settings!r}.")
    return by_tag[tag](**settings)


def schema(options: Sequence[type[Axis]]) -> dict[str, Any]:
    """Return the JSON schema of the notation of one axis."""
    variants: list[dict[str, Any]] = []
    for option in options:
        body = _inlined(option.model_json_schema())
        if not body.get("required"):
            variants.append({"const": option.tag})
        variants.append(
            {
                "type": "object",
                "properties": {option.tag: body},
                "required": [option.tag],
                "additionalProperties": False,
            }
        )
    return {"oneOf": variants}


def _inlined(body: dict[str, Any]) -> dict[str, Any]:
    """Put the definitions that a schema refers to in the places that refer to them."""
    definitions = body.pop("$defs", {})

    def walk(node: Any) -> Any:
        if isinstance(node, dict):
            name = str(node.get("$ref", "")).removeprefix("#/$defs/")
            return walk(definitions[name]) if name in definitions else {key: walk(one) for key, one in node.items()}
        return [walk(one) for one in node] if isinstance(node, list) else node

    inlined: dict[str, Any] = walk(body)
    return inlined
