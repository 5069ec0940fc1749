"""Text notation: ``mam(length=30, rank=512, scale=4)`` and sums of such calls.

Read with Python's own parser and never evaluated: names are looked up in the catalogue, values must be
literals.
"""

from __future__ import annotations

import ast
import inspect
import re
from functools import lru_cache
from typing import Any, get_args, get_type_hints

from unipetl import catalogue
from unipetl.errors import MethodError, NotationError, unknown
from unipetl.method import Method

_DOTTED = re.compile(r"\w+(\.\w+)*")


def parse(text: str | Method) -> Method:
    """Return the method that ``text`` denotes.

    Args:
        text: a catalogue name (``lora``), a call (``lora(rank=8)``), a sum of them
            (``prefix_tuning(length=30) + lora(rank=8)``), YAML or JSON of a method, or a method itself.

    Raises:
        NotationError: the text cannot be read; the message shows where.
        MethodError: a value in it is wrong.

    Example:
        >>> parse("lora(rank=8)").modifications[0].form.rank
        8
    """
    return text if isinstance(text, Method) else _parsed(text)


@lru_cache(maxsize=4096)  # a comparison reads the same few texts for every run
def _parsed(text: str) -> Method:
    if not text or not text.strip():
        raise NotationError(f"method: expected text such as 'lora(rank=8)', found {text!r}.")
    if ":" in text and not text.strip().endswith(")"):
        return Method.from_yaml(text)
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        column = " " * max((error.offset or 1) - 1, 0)
        raise NotationError(
            f"method: cannot read this:\n  {text.strip()}\n  {column}^ {error.msg}\n"
            "Expected a catalogue name with settings, such as mam(length=30, rank=512)."
        ) from None
    return _read(tree, text)


def _read(node: ast.expr, text: str) -> Method:
    if isinstance(node, (ast.Name, ast.Constant)) and ast.unparse(node).lower() == "none":
        raise NotationError(
            "method: 'none' is no method but the lack of one. For the model as it is (zero-shot) attach nothing; "
            "recipes, comparison plans and `unipetl train` take 'none' for that."
        )
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _read(node.left, text) + _read(node.right, text)
    if isinstance(node, ast.Name):
        return _call(node.id, {})
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        if node.args:
            raise NotationError(
                f"method: {node.func.id!r} takes named settings only, such as "
                f"{node.func.id}({_first_setting(node.func.id)}=...); found {ast.unparse(node.args[0])!r}."
            )
        settings = {}
        for keyword in node.keywords:
            if keyword.arg is None:
                raise NotationError("method: '**' is not part of the notation.")
            if keyword.arg in settings:
                raise NotationError(f"method {node.func.id!r}: {keyword.arg} is given twice.")
            settings[keyword.arg] = _literal(keyword.value, keyword.arg)
        return _call(node.func.id, settings)
    raise NotationError(
        f"method: {ast.unparse(node)!r} is no catalogue entry; expected for example mam(length=30, rank=512)."
    )


def _literal(node: ast.expr, name: str) -> Any:
    if isinstance(node, ast.Name) and node.id.lower() in {"true", "false", "null", "none"}:
        return {"true": True, "false": False}.get(node.id.lower())
    if isinstance(node, (ast.Name, ast.Attribute)) and _DOTTED.fullmatch(plain := ast.unparse(node)):
        return plain  # init=lora reads as init="lora", at=ffn.up as at="ffn.up"
    if isinstance(node, ast.List):
        return [_literal(one, name) for one in node.elts]
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise NotationError(f"method: {name}={ast.unparse(node)!r} is not a plain value.") from None


def _first_setting(name: str) -> str:
    entry = catalogue.find(name)
    return next(iter(inspect.signature(entry.build).parameters), "setting")


def _call(name: str, settings: dict[str, Any]) -> Method:
    entry = catalogue.find(name)
    known = get_type_hints(entry.build)
    del known["return"]
    for setting, value in settings.items():
        if setting not in known:
            wrong = unknown("setting", setting, known) if known else f"it has no settings; found {setting!r}."
            raise NotationError(f"method {name!r}: {wrong}")
        if isinstance(value, bool) and bool not in (known[setting], *get_args(known[setting])):
            raise NotationError(f"method {name!r}: {setting}: true and false are no value here (found {value}).")
    try:
        return entry.build(**settings)
    except MethodError as error:
        raise type(error)(f"method {name!r}: {error}") from None
    except TypeError as error:
        raise NotationError(f"method {name!r}: {error}") from None
