"""Reading a file never runs code: no pickle, no torch.load, no eval, no unsafe YAML, no remote code in the sources."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from house_rules.sources import PACKAGE, at, calls, parsed, python_files

PICKLERS = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
BUILTINS = {"eval", "exec", "compile", "__import__"}
UNSAFE = {
    *(f"torch.{name}" for name in ("load", "hub.load", "serialization.load")),
    *(f"yaml.{name}" for name in ("unsafe_load", "unsafe_load_all", "full_load", "full_load_all")),
    *(f"{module}.read_pickle" for module in ("pandas", "polars")),
}
WITH_LOADER = {"yaml.load", "yaml.load_all"}
SAFE_LOADERS = {"yaml.SafeLoader", "yaml.CSafeLoader"}
UNSAFE_SWITCHES = {"allow_pickle", "trust_remote_code"}


def imported_names(tree: ast.AST) -> dict[str, str]:
    """Local name -> the dotted name it was imported as."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
    return names


def dotted(node: ast.AST, names: dict[str, str]) -> str:
    """`t.load` as `torch.load` where t is torch; the empty string where it is no plain name."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        owner = dotted(node.value, names)
        return f"{owner}.{node.attr}" if owner else ""
    return ""


def code_runners(path: Path) -> list[str]:
    """Every place in a file that could run code read from elsewhere."""
    tree = parsed(path)
    names = imported_names(tree)
    safe = SAFE_LOADERS | {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and node.bases and all(dotted(b, names) in SAFE_LOADERS for b in node.bases)
    }
    faults = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            faults += [f"{at(path, node)}: imports {m}" for m in modules if m.split(".")[0] in PICKLERS]
    for call in calls(tree):
        name = dotted(call.func, names)
        if name in UNSAFE or name in BUILTINS:
            faults.append(f"{at(path, call)}: calls {name}")
        if name in WITH_LOADER:
            loaders = [*call.args[1:2], *(word.value for word in call.keywords if word.arg == "Loader")]
            if not loaders or any(dotted(loader, names) not in safe for loader in loaders):
                faults.append(f"{at(path, call)}: calls {name} without a safe loader")
        for word in call.keywords:
            if word.arg in UNSAFE_SWITCHES and not (isinstance(word.value, ast.Constant) and word.value.value is False):
                faults.append(f"{at(path, call)}: passes {word.arg}")
    return faults


def test_no_source_can_run_code_from_a_file():
    assert [fault for path in python_files(PACKAGE) for fault in code_runners(path)] == []


@pytest.mark.parametrize(
    ("planted", "fault"),
    [
        ("import pickle", "imports pickle"),
        ("from pickle import loads", "imports pickle"),
        ("def f():\n    import joblib.externals", "imports joblib"),
        ("import torch\ntorch.load('x')", "calls torch.load"),
        ("import torch as t\nt.load('x', weights_only=True)", "calls torch.load"),
        ("from torch import load as read\nread('x')", "calls torch.load"),
        ("eval('1')", "calls eval"),
        ("exec('1')", "calls exec"),
        ("import yaml\nyaml.load('x')", "without a safe loader"),
        ("import yaml\nyaml.load('x', yaml.Loader)", "without a safe loader"),
        ("from yaml import load, UnsafeLoader\nload('x', Loader=UnsafeLoader)", "without a safe loader"),
        ("import yaml\nclass Mine(yaml.Loader): ...\nyaml.load('x', Mine)", "without a safe loader"),
        ("import yaml\nyaml.full_load('x')", "calls yaml.full_load"),
        ("import numpy as np\nnp.load('x', allow_pickle=True)", "passes allow_pickle"),
        ("build(trust_remote_code=chosen)", "passes trust_remote_code"),
    ],
)
def test_planted_code_runner_is_reported(tmp_path, planted, fault):
    path = tmp_path / "planted.py"
    path.write_text(planted)
    found = code_runners(path)
    assert len(found) == 1
    assert fault in found[0]


@pytest.mark.parametrize(
    "harmless",
    [
        "model.eval()",
        "import json\njson.load(file)",
        "import re\nre.compile('x')",
        "import numpy as np\nnp.load('x', allow_pickle=False)",
        "import yaml\nyaml.safe_load('x')",
        "import yaml\nyaml.load('x', Loader=yaml.CSafeLoader)",
        "import yaml\nclass Mine(yaml.SafeLoader): ...\nyaml.load('x', Mine)",
        "from safetensors.torch import load_file\nload_file('x')",
    ],
)
def test_harmless_code_is_not_reported(tmp_path, harmless):
    path = tmp_path / "harmless.py"
    path.write_text(harmless)
    assert code_runners(path) == []
