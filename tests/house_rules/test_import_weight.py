"""What an import pulls in: the axes never transformers, `import unipetl` and `--help` never torch."""

from __future__ import annotations

import pytest

from house_rules.sources import PACKAGE, loaded_after

WITHOUT_TRANSFORMERS = [
    "forms",
    "insertion",
    "composition",
    "representation",
    "method",
    "catalogue",
    "architectures",
]
HEAVY = ["torch", "transformers", "datasets", "accelerate", "matplotlib", "pandas"]
HELP = """
import sys
sys.argv = ["unipetl", "--help"]
from unipetl.cli.main import app
try:
    app()
except SystemExit as stop:
    assert not stop.code, stop.code
"""


def module_names(package: str) -> list[str]:
    """`package` of unipetl and every module in it."""
    top = PACKAGE / package
    if not top.is_dir():
        return [f"unipetl.{package}"]
    files = sorted(top.rglob("*.py"))
    return [
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__") for path in files
    ]


def test_axes_methods_and_tables_do_not_import_transformers():
    modules = [name for package in WITHOUT_TRANSFORMERS for name in module_names(package)]
    assert loaded_after(f"import {', '.join(modules)}", ["transformers"]) == []


def test_import_unipetl_is_light():
    assert loaded_after("import unipetl", HEAVY) == []


def test_help_is_light():
    assert loaded_after(HELP, HEAVY) == []


@pytest.mark.parametrize("how", ["import transformers", "def late(): import transformers\nlate()"])
def test_planted_import_is_reported(tmp_path, how):
    (tmp_path / "transformers.py").touch()
    (tmp_path / "bad_form.py").write_text(how)
    assert loaded_after("import bad_form", ["transformers", "torch"], tmp_path) == ["transformers"]


def test_code_that_fails_is_not_taken_for_clean():
    with pytest.raises(AssertionError, match="ModuleNotFoundError"):
        loaded_after("import no_such_module", ["torch"])
