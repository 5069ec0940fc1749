"""`except PetlError` catches every deliberate error: each class of unipetl.errors derives from it."""

from __future__ import annotations

import ast
import builtins
from pathlib import Path
from types import ModuleType

import pytest

import unipetl.errors
from house_rules.sources import PACKAGE, at, parsed, python_files

BUILTIN_ERRORS = {
    name for name, value in vars(builtins).items() if isinstance(value, type) and issubclass(value, BaseException)
}


def strays(module: ModuleType, base: type) -> list[str]:
    """The exception classes a module defines that do not derive from `base`."""
    return [
        name
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, BaseException) and value.__module__ == module.__name__
        if not issubclass(value, base)
    ]


def defined_elsewhere(path: Path, errors: set[str]) -> list[str]:
    """Exception classes that a file defines; only errors.py may, so that it stays the one catalogue."""
    return [
        f"{at(path, node)}: {node.name}"
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ClassDef)
        and any((getattr(b, "id", None) or getattr(b, "attr", None)) in BUILTIN_ERRORS | errors for b in node.bases)
    ]


def names_of_errors() -> set[str]:
    return {name for name, value in vars(unipetl.errors).items() if isinstance(value, type)}


def test_every_error_is_a_petl_error():
    assert strays(unipetl.errors, unipetl.errors.PetlError) == []


def test_errors_are_defined_in_one_place():
    others = [path for path in python_files(PACKAGE) if path != PACKAGE / "errors.py"]
    assert [fault for path in others for fault in defined_elsewhere(path, names_of_errors())] == []


def test_planted_stray_is_reported():
    module = ModuleType("planted")
    base = type("PetlError", (Exception,), {"__module__": "planted"})
    module.PetlError = base
    module.PlanError = type("PlanError", (base,), {"__module__": "planted"})
    module.Stray = type("Stray", (ValueError,), {"__module__": "planted"})
    module.Imported = KeyError
    assert strays(module, base) == ["Stray"]


@pytest.mark.parametrize("bases", ["ValueError", "PetlError", "errors.PlanError"])
def test_planted_second_catalogue_is_reported(tmp_path, bases):
    path = tmp_path / "planted.py"
    path.write_text(f"class Mine({bases}): ...\nclass Form(Base): ...")
    assert [fault.split(": ")[1] for fault in defined_elsewhere(path, {"PetlError", "PlanError"})] == ["Mine"]
