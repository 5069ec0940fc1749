"""Where the project's sources are, and small readers that the house rules share."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "unipetl"
TESTS = ROOT / "tests"


def python_files(folder: Path) -> list[Path]:
    """Every Python file under `folder`, in a fixed order; never empty, so that no rule passes on nothing."""
    files = sorted(folder.rglob("*.py"))
    assert files, f"no Python files under {folder}"
    return files


def parsed(path: Path) -> ast.Module:
    return _tree(path.read_text(encoding="utf-8"), str(path))


@cache
def _tree(text: str, name: str) -> ast.Module:
    """The rules read the same files; none changes a tree."""
    return ast.parse(text, filename=name)


def at(path: Path, node: ast.AST) -> str:
    """`file:line` of a node, the file relative to the repository where it lies in it."""
    shown = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
    return f"{shown}:{getattr(node, 'lineno', 1)}"


def calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def loaded_after(code: str, watched: Iterable[str], path: Path | None = None) -> list[str]:
    """Run `code` in a fresh interpreter and say which of the `watched` packages it imported."""
    report = f"\nimport sys\nprint('LOADED', *[name for name in {sorted(watched)!r} if name in sys.modules])"
    environment = dict(os.environ)
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    done = subprocess.run([sys.executable, "-c", code + report], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1].split()[1:]
