"""The public surface is this list: a name joins or leaves it on purpose, with a line in the changelog."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from importlib.metadata import version

import pytest

import unipetl
from house_rules.sources import PACKAGE, parsed

PUBLIC = {
    # the design space
    "Bottleneck",
    "HeadAttention",
    "LowRank",
    "Prompt",
    "Rescale",
    "Method",
    "Modification",
    "catalogue",
    "parse",
    # plan, attach, take back
    "Plan",
    "plan",
    "Attachment",
    "attach",
    "attachments",
    "activate",
    "detach",
    "routed",
    "summary",
    "fit_budget",
    # no cost at inference
    "fold",
    "unfold",
    "arithmetic",
    # files
    "save",
    "load",
    "reload",
    "push_to_hub",
    "interop",
    # the rest
    "errors",
    "experiment",
    "testing",
}


def differences(found: Iterable[str], written: set[str]) -> list[str]:
    """What a list of names has too many, too few, or twice."""
    names = list(found)
    return [
        *(f"{name} is public but not written down" for name in sorted(set(names) - written)),
        *(f"{name} is written down but not public" for name in sorted(written - set(names))),
        *(f"{name} is named twice" for name in sorted({n for n in names if names.count(n) > 1})),
    ]


def names_for_type_checkers(tree: ast.Module) -> list[str]:
    """The names that the `if TYPE_CHECKING:` block of a module imports."""
    blocks = [n for n in tree.body if isinstance(n, ast.If) and getattr(n.test, "id", None) == "TYPE_CHECKING"]
    imports = [n for block in blocks for n in ast.walk(block) if isinstance(n, ast.ImportFrom)]
    return [alias.asname or alias.name for node in imports for alias in node.names]


def test_all_is_the_written_list():
    assert differences(unipetl.__all__, PUBLIC) == []


def test_type_checkers_see_the_same_names():
    assert differences(names_for_type_checkers(parsed(PACKAGE / "__init__.py")), PUBLIC) == []


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_public_name_can_be_used(name):
    assert getattr(unipetl, name) is not None
    assert name in dir(unipetl)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = unipetl.no_such_name


def test_version_is_the_installed_one():
    assert unipetl.__version__ == version("unipetl")


def test_planted_differences_are_reported():
    found = differences(["plan", "extra", "plan"], {"plan", "missing"})
    assert found == [
        "extra is public but not written down",
        "missing is written down but not public",
        "plan is named twice",
    ]


def test_planted_type_checking_block_is_read():
    tree = ast.parse("if TYPE_CHECKING:\n    from a import b, c as d\nfrom a import e")
    assert names_for_type_checkers(tree) == ["b", "d"]
