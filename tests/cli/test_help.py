from __future__ import annotations

import re
import subprocess
import sys

import pytest
from typer.main import get_command

import unipetl
from cli.calling import call, process, refusal
from unipetl.cli.main import NAMES, app

HEAVY = {"torch", "transformers", "datasets", "accelerate", "matplotlib", "numpy", "yaml"}
PROBE = """
import sys
from unipetl.cli.main import app
for verb in {names}:
    try:
        app([*verb, "--help"], prog_name="unipetl")
    except SystemExit as stop:
        assert not stop.code
print("LOADED", *sorted({heavy} & set(sys.modules)))
"""


def test_every_help_is_light():
    code = PROBE.format(names=[[], *([name] for name in NAMES)], heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "LOADED"


@pytest.mark.parametrize("verb", NAMES)
def test_every_verb_has_examples_and_says_what_it_does(verb):
    text = call(verb, "--help").stdout
    assert "Examples" in text
    assert f"$ unipetl {verb}" in text
    assert "[dim]" not in text


@pytest.mark.parametrize("verb", NAMES)
def test_no_help_loses_what_is_in_brackets(verb):
    command = get_command(app).commands[verb]
    texts = [NAMES[verb].command.__doc__, *(getattr(one, "help", None) or "" for one in command.params)]
    shown = re.sub(r"[\s│]", "", call(verb, "--help").stdout)
    lost = [
        part for text in texts for part in re.findall(r"\S*\[[^\]]*\]", text) if re.sub(r"\s", "", part) not in shown
    ]
    assert lost == []


def test_the_extra_that_a_search_needs_is_named():
    assert "pip install 'unipetl[search]'" in " ".join(call("search", "--help").stdout.split())


def test_help_lists_every_verb():
    text = call("--help").stdout
    assert [name for name in NAMES if name not in text] == []


def test_version():
    assert call("--version").stdout == f"unipetl {unipetl.__version__}\n"


def test_module_is_the_command_line():
    done = process("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"unipetl {unipetl.__version__}\n", "")


def test_no_verb_is_usage():
    assert call(code=2).exit_code == 2


def test_unknown_verb_is_usage_with_a_near_match():
    assert "Did you mean 'params'" in refusal("param", code=2)


def test_unknown_option_is_usage():
    assert "--jsn" in refusal("methods", "--jsn", code=2)


def test_pipes_get_whole_plain_lines():
    done = process("methods", COLUMNS="40")
    assert done.returncode == 0
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
    rows = [line for line in done.stdout.splitlines() if line.startswith("multi_head_parallel_adapter")]
    assert len(rows) == 1
    assert rows[0].endswith("He et al. 2022")
