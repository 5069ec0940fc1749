"""Every public module, class, function and method says what it is."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from house_rules.sources import PACKAGE, at, parsed, python_files

EXEMPT_DECORATORS = {"overload", "override", "setter", "deleter"}


def public_definitions(body: list[ast.stmt]) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    """Public classes and functions, and those inside public classes; what is inside a function is its own affair."""
    for node in body:
        if isinstance(node, ast.If | ast.Try):
            yield from public_definitions([*node.body, *node.orelse])
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            decorators = {getattr(d, "id", None) or getattr(d, "attr", None) for d in node.decorator_list}
            if not decorators & EXEMPT_DECORATORS:
                yield node
            if isinstance(node, ast.ClassDef):
                yield from public_definitions(node.body)


def undocumented(path: Path) -> list[str]:
    """Every public definition of a file without a docstring, the file itself included."""
    tree = parsed(path)
    faults = [] if ast.get_docstring(tree) else [f"{at(path, tree)}: the module has no docstring"]
    return faults + [
        f"{at(path, node)}: {node.name} has no docstring"
        for node in public_definitions(tree.body)
        if not ast.get_docstring(node)
    ]


def test_everything_public_is_documented():
    assert [fault for path in python_files(PACKAGE) for fault in undocumented(path)] == []


@pytest.mark.parametrize(
    ("planted", "fault"),
    [
        ("x = 1", "the module"),
        ('"""M."""\ndef f(): pass', "f has"),
        ('"""M."""\nasync def f(): pass', "f has"),
        ('"""M."""\nclass C: pass', "C has"),
        ('"""M."""\nclass C:\n    """C."""\n    def m(self): pass', "m has"),
        ('"""M."""\nif True:\n    def f(): pass', "f has"),
    ],
)
def test_planted_silence_is_reported(tmp_path, planted, fault):
    path = tmp_path / "planted.py"
    path.write_text(planted)
    found = undocumented(path)
    assert len(found) == 1
    assert fault in found[0]


@pytest.mark.parametrize(
    "harmless",
    [
        "def _f(): pass",
        "class _C:\n    def m(self): pass",
        "def f():\n    'F.'\n    def inner(): pass",
        "@overload\ndef f(): ...",
    ],
)
def test_private_code_is_not_reported(tmp_path, harmless):
    path = tmp_path / "harmless.py"
    path.write_text(f'"""M."""\n{harmless}')
    assert undocumented(path) == []
