"""YAML that remembers its lines, so that what is wrong in a file is said with the line it stands on."""

from __future__ import annotations

import re
import typing
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import PydanticCustomError

from unipetl.errors import RecipeError, nearest

Place = tuple[str | int, ...]
M = TypeVar("M", bound="Checked")


class Fault(NamedTuple):
    """What is wrong, and where: the keys that lead there."""

    place: Place
    message: str

    def __str__(self) -> str:
        """Return the fault as ``field: message``."""
        field = ".".join(str(part) for part in self.place)
        return f"{field}: {self.message}" if field else self.message


class Checked(BaseModel):
    """Immutable data whose constructor says what is wrong in one [RecipeError][unipetl.errors.RecipeError]."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    def __init__(self, **fields: Any) -> None:
        """Check the fields."""
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise RecipeError("\n".join(map(str, faults(error, type(self))))) from error


def fault(*found: Fault) -> PydanticCustomError:
    """Return an error that a validator raises, for faults at places below its field."""
    return PydanticCustomError("faults", "{found}", {"found": list(found)})


@dataclass(frozen=True)
class Marked:
    """A YAML document: its data, and the node tree that knows the lines."""

    path: Path
    data: Any
    root: yaml.Node | None

    def line(self, place: Place) -> int:
        """Return the line (from 1) of the key at ``place``, or of the nearest thing around it."""
        node, line = self.root, 1
        for part in place:
            found = _child(node, part)
            if found is None:
                break
            line, node = found
        return line

    def line_of_word(self, place: Place, message: str) -> int:
        """Return the line of the first key or value below ``place`` that ``message`` quotes, else of ``place``."""
        node = self.root
        for part in place:
            found = _child(node, part)
            node = found[1] if found else None
        lines = {scalar.value: scalar.start_mark.line + 1 for scalar in reversed(list(_scalars(node)))}
        quoted = re.findall(r"'([^']+)'", message)
        return next((lines[word] for word in quoted if word in lines), self.line(place))


def read_marked(path: str | Path) -> Marked:
    """Read a YAML (or JSON) file.

    Raises:
        RecipeError: it cannot be read, is no YAML, or has a key twice; with the line.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot read {str(file)!r}: {getattr(error, 'strerror', None) or error}.") from error
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        _refuse_twice(root, file)
        data = None if root is None else loader.construct_document(root)
    except RecipeError:
        raise
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{file}:{mark.line + 1}" if mark else str(file)
        raise RecipeError(f"{where}: this is not YAML: {error.problem or error.context}.") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise RecipeError(f"{file}: this is not YAML: {error}") from None
    finally:
        loader.dispose()
    return Marked(file, data, root)


def read_as(path: str | Path, kind: type[M], what: str, further: Callable[[Mapping[str, Any]], list[Fault]]) -> M:
    """Read a file as a ``kind``.

    Args:
        path: the file.
        kind: what it must fit.
        what: what that is called.
        further: says what else is wrong in the file's data, which may be wrong in every other way too.

    Raises:
        RecipeError: with the file, the line and the field of everything that is wrong in it.
    """
    document = read_marked(path)
    if not isinstance(document.data, dict):
        found = "nothing" if document.data is None else type(document.data).__name__
        fields = ", ".join(kind.model_fields)
        raise RecipeError(f"{document.path}:1: expected a {what} with the fields {fields}; found {found}.")
    data = {str(name): value for name, value in document.data.items()}
    wrong = further(data)
    try:
        made = kind(**data)
    except RecipeError as error:
        assert isinstance(error.__cause__, ValidationError)
        wrong += faults(error.__cause__, kind)
    else:
        if not wrong:
            return made
    lines = sorted((document.line_of_word(one.place, one.message), str(one)) for one in wrong)
    raise RecipeError("\n".join(f"{document.path}:{line}: {message}" for line, message in lines))


def faults(error: ValidationError, kind: type[BaseModel]) -> list[Fault]:
    """Return pydantic's report as faults, with near matches for unknown fields."""
    found: list[Fault] = []
    for one in error.errors():
        place: Place = tuple(part for part in one["loc"] if not (isinstance(part, str) and part.startswith("~")))
        if one["type"] == "extra_forbidden":
            options = _fields_at(kind, place[:-1])
            near = nearest(str(place[-1]), options)
            hint = f" Did you mean {near!r}?" if near else ""
            found.append(Fault(place, f"unknown field.{hint} Fields: {', '.join(options)}."))
        elif one["type"] == "missing":
            found.append(Fault(place, "this field is required."))
        elif one["type"] == "faults":
            found += [Fault((*place, *inner.place), inner.message) for inner in one["ctx"]["found"]]
        else:
            message = one["msg"].removeprefix("Value error, ")
            found.append(Fault(place, f"{message} (found {one['input']!r})."))
    return found


def _fields_at(kind: type[BaseModel], place: Place) -> Sequence[str]:
    current: type[BaseModel] = kind
    for part in place:
        if part in current.model_fields:
            current = _model_in(current.model_fields[str(part)].annotation) or current
    return list(current.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in typing.get_args(annotation) if (found := _model_in(part))), None)


def _child(node: yaml.Node | None, part: str | int) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(part):
                return key.start_mark.line + 1, value
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part].start_mark.line + 1, node.value[part]
    return None


def _scalars(node: yaml.Node | None) -> Iterator[yaml.ScalarNode]:
    if isinstance(node, yaml.ScalarNode):
        yield node
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from _scalars(key)
            yield from _scalars(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _scalars(value)


def _refuse_twice(node: yaml.Node | None, file: Path) -> None:
    if isinstance(node, yaml.MappingNode):
        seen: dict[Hashable, int] = {}
        for key, value in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else None
            if name is not None and name in seen:
                raise RecipeError(f"{file}:{key.start_mark.line + 1}: {name}: already given on line {seen[name]}.")
            seen[name] = key.start_mark.line + 1
            _refuse_twice(value, file)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _refuse_twice(value, file)
