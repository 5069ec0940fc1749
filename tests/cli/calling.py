"""Calling the command line in this process, and reading what it wrote."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from typer.testing import CliRunner, Result

from unipetl.cli.main import app


def call(*args: object, code: int = 0) -> Result:
    """Run ``unipetl args``; its exit code must be ``code``, and nothing may look like a traceback."""
    result = CliRunner().invoke(app, [str(arg) for arg in args], catch_exceptions=False)
    assert result.exit_code == code, f"exit {result.exit_code}\n{result.stdout}\n{result.stderr}"
    assert "Traceback" not in result.output
    return result


def data(*args: object, code: int = 0) -> Any:
    """Return the JSON that ``unipetl args --json`` writes, which must be all of standard output."""
    return json.loads(call(*args, "--json", code=code).stdout)


def refusal(*args: object, code: int = 1) -> str:
    """Return the message of a call that must fail; standard output stays empty."""
    result = call(*args, code=code)
    assert result.stdout == ""
    return result.stderr


def process(*args: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m unipetl args`` in a process of its own."""
    command = [sys.executable, "-m", "unipetl", *(str(arg) for arg in args)]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, timeout=120)
