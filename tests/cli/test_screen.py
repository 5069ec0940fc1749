from __future__ import annotations

import io
import json
import sys

import pytest

from unipetl.cli import screen


class Terminal(io.TextIOWrapper):
    def isatty(self):
        return True


@pytest.fixture
def written(monkeypatch):
    """Put standard output on a stream of one's own; return a function that reads it."""

    def use(kind=io.TextIOWrapper, encoding="utf-8"):
        stream = kind(io.BytesIO(), encoding=encoding)
        monkeypatch.setattr(sys, "stdout", stream)

        def read():
            stream.flush()
            return stream.buffer.getvalue().decode(encoding)

        return read

    return use


def test_json_lacks_infinities(written):
    read = written()
    screen.show_json({"loss": float("nan"), "scores": (1.5, float("inf")), 3: "σ"})
    assert json.loads(read()) == {"loss": None, "scores": [1.5, None], "3": "σ"}
    assert "σ" in read()


def test_a_screen_without_unicode_gets_other_signs_and_no_traceback(written):
    read = written(encoding="ascii")
    screen.show("σ(x)")
    screen.show_table(("Δh",), [["λ"]])
    assert read().startswith("?(x)\n?h\n")


def test_json_is_escaped_where_it_must(written):
    read = written(encoding="ascii")
    screen.show_json({"σ": "λ"})
    assert json.loads(read()) == {"σ": "λ"}


def test_tables_are_whole_in_pipes_and_fitted_on_terminals(written, monkeypatch):
    row = ["word " * 30, 1234567, None, True]
    columns = ("text", "number", "none", "flag")
    read = written()
    screen.show_table(columns, [row], numbers=("number",))
    assert len(read().splitlines()) == 3
    assert "1,234,567" in read()
    assert read().splitlines()[-1].endswith("-     yes")
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "xterm")
    read = written(Terminal)
    screen.show_table(columns, [row], numbers=("number",))
    assert len(read().splitlines()) > 3


@pytest.mark.parametrize(("variable", "coloured"), [("NO_COLOR", False), (None, True)])
def test_no_color_is_respected(written, monkeypatch, variable, coloured):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if variable:
        monkeypatch.setenv(variable, "1")
    read = written(Terminal)
    screen.show("text", style="red")
    assert ("\x1b[31m" in read()) is coloured


def test_others_text_cannot_steer_the_terminal(written):
    read = written()
    screen.show("a\x1b[2Jb\nc")
    screen.show_table(("name",), [["x\x1b]0;title\x07"]])
    assert "\x1b" not in read()
    assert "\x07" not in read()


def test_shares():
    assert screen.percent(0.0047545) == "0.475 %"
