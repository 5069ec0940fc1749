"""`unipetl report` writes a page, Markdown or LaTeX where it is told to, and refuses what is none of its folders."""

from __future__ import annotations

import re

import pytest

from cli.calling import call, data, refusal
from reporting.made import write_comparison


def words(text):
    """A boxed message without its box."""
    return re.sub(r"[│\s]+", " ", text)


@pytest.fixture
def folder(tmp_path):
    return write_comparison(tmp_path / "first", seeds=[0])


@pytest.mark.parametrize(
    ("form", "name", "start"),
    [
        ("html", "report.html", "<!doctype html>"),
        ("md", "report.md", "# made by hand"),
        ("latex", "report.tex", "% made"),
    ],
)
def test_every_form_has_its_file(folder, form, name, start):
    said = call("report", folder, "--to", form).stdout
    assert said == f"{folder / name}: 4 finished runs of made by hand\n"
    assert (folder / name).read_text(encoding="utf-8").startswith(start)


def test_what_failed_and_what_is_missing_is_counted_too(tmp_path):
    scores = {("LoRA", 0): None, ("adapter", 0): "missing", ("adapter", 1): "missing"}
    folder = write_comparison(tmp_path / "first", scores=scores)
    said = call("report", folder, "--to", "md").stdout
    assert said == f"{folder / 'report.md'}: 5 finished runs, 1 failed and 2 not made yet of made by hand\n"


def test_a_program_is_told_what_was_found(folder, tmp_path):
    found = data("report", folder, "-o", tmp_path / "deep" / "page.html")
    assert found == {
        "path": str(tmp_path / "deep" / "page.html"), "title": "made by hand", "runs": 4, "failures": 0, "missing": 0,
    }  # fmt: skip
    assert (tmp_path / "deep" / "page.html").is_file()


def test_several_folders_need_a_file(folder, tmp_path):
    other = write_comparison(tmp_path / "second", {"wide": "lora(rank=64)"}, seeds=[0])
    assert "-o FILE" in words(refusal("report", folder, other, code=2))
    call("report", folder, other, "-o", tmp_path / "both.html")
    assert "wide" in (tmp_path / "both.html").read_text(encoding="utf-8")


def test_a_run_can_be_reported(trained):
    call("report", trained)
    page = (trained / "report.html").read_text(encoding="utf-8")
    assert "lora(rank=2)" in page
    assert "task head" in page  # from the plan that the run recorded


def test_what_is_no_result_is_refused(tmp_path):
    assert "does not exist" in refusal("report", tmp_path / "nowhere")
    said = refusal("report", write_comparison(tmp_path / "c"), "-o", tmp_path, code=2)
    assert "is a directory; name a file" in words(said)
    assert "html" in refusal("report", tmp_path, "--to", "pdf", code=2)
