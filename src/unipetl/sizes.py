"""The sizes of a method, its ranks and lengths: read, and changed together.

A method is text notation or a [Method][unipetl.method.Method]. In text, ``?`` marks a size that is open: then these
alone change, all to the same value, and the others stay as they are written. Where nothing is marked all sizes change,
in proportion to each other; a size that text leaves out counts as its default.
"""

from __future__ import annotations

import ast
import inspect

from unipetl import catalogue, notation
from unipetl.method import Method, Modification

#: How text marks a size that is open, as in ``mam(length=4, rank=?)``.
OPEN = "?"
#: What sizes are called, as settings of the catalogue's methods and as fields of forms.
SIZES = ("rank", "length")


def sizes(method: str | Method) -> tuple[int, ...]:
    """Return the sizes that [resized][] would change, in the order of the method; open ones count as 1.

    Raises:
        NotationError, MethodError: the text is no method.
    """
    if isinstance(method, Method):
        return tuple(size for one in method.modifications if (size := _size(one)) is not None)
    if OPEN in method:
        notation.parse(method.replace(OPEN, "1"))
        return (1,) * method.count(OPEN)
    notation.parse(method)
    if not _is_call(method):
        return sizes(notation.parse(method))
    return tuple(size for call in _calls(ast.parse(method.strip(), mode="eval")) for _, size in _settings(call))


def resized(method: Method | str, largest: int) -> Method | str:
    """Return ``method``, text as text, with its largest size at ``largest`` and the others in proportion, none below 1.

    Raises:
        NotationError, MethodError: the text is no method.
    """
    if isinstance(method, Method):
        return _resized(method, largest)
    if OPEN in method:
        return method.replace(OPEN, str(largest))
    before = max(sizes(method), default=1)
    if not _is_call(method):  # YAML or JSON
        return _resized(notation.parse(method), largest).canonical()
    tree = ast.parse(method.strip(), mode="eval")
    for call in _calls(tree):
        given = {keyword.arg: keyword for keyword in call.keywords}
        for name, size in _settings(call):
            value = ast.Constant(_scaled(size, largest, before))
            if name in given:
                given[name].value = value
            else:
                call.keywords.append(ast.keyword(name, value))
    return ast.unparse(tree)


def _resized(method: Method, largest: int) -> Method:
    before = max(sizes(method), default=1)
    changed = [_with_size(one, largest, before) for one in method.modifications]
    return Method(modifications=tuple(changed), train=method.train)


def _scaled(size: int, largest: int, before: int) -> int:
    return max(1, round(size * largest / before))


def _size(one: Modification) -> int | None:
    found = (getattr(one.form, name, None) for name in SIZES)
    return next((value for value in found if isinstance(value, int)), None)


def _with_size(one: Modification, largest: int, before: int) -> Modification:
    size = _size(one)
    if size is None:
        return one
    name = next(name for name in SIZES if isinstance(getattr(one.form, name, None), int))
    fields = {field: getattr(one.form, field) for field in type(one.form).model_fields}
    form = type(one.form)(**{**fields, name: _scaled(size, largest, before)})
    return one.model_copy(update={"form": form})


def _is_call(text: str) -> bool:
    """Say whether the text is the catalogue's notation, not YAML or JSON."""
    return ":" not in text or text.strip().endswith(")")


def _calls(tree: ast.Expression) -> list[ast.Call]:
    """Return the calls of a sum, in its order; a bare name becomes a call of it, in place."""

    class Called(ast.NodeTransformer):
        def visit_Call(self, node: ast.Call) -> ast.Call:
            return node  # what is inside is settings

        def visit_Name(self, node: ast.Name) -> ast.Call:
            return ast.Call(node, [], [])

    Called().visit(tree)
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return sorted(found, key=lambda node: getattr(node.func, "col_offset", 0))


def _settings(call: ast.Call) -> list[tuple[str, int]]:
    """Return the sizes of one call of the catalogue, by name, defaults included."""
    assert isinstance(call.func, ast.Name)
    parameters = inspect.signature(catalogue.find(call.func.id).build).parameters
    given = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords if keyword.arg in SIZES}
    return [(name, given.get(name, parameters[name].default)) for name in parameters if name in SIZES]
