"""A run whose loss is no number says so wherever its score is shown, and keeps the score."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from experiment.toy_task import parity
from unipetl.cli.results import show_comparison
from unipetl.experiment import run
from unipetl.experiment.comparing import run_directory
from unipetl.experiment.directory import RunDirectory
from unipetl.experiment.divergence import MEANING, diverged, loss_note
from unipetl.experiment.grid import ComparePlan
from unipetl.experiment.table import report
from unipetl.reporting import tables
from unipetl.reporting.markdown import to_markdown
from unipetl.reporting.reading import gather

TRAINING = {"max_steps": 3, "per_device_train_batch_size": 4, "logging_steps": 1, "use_cpu": True}
NOTE = "The loss is not a number at 2 of 3 logged steps and in the final evaluation: the training diverged"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A comparison of a method that trains with one that diverges, and what the diverging run said."""
    folder, told = tmp_path_factory.mktemp("made"), []
    methods = {"fine": "lora(rank=2)", "wild": {"method": "lora(rank=2)", "training": {"learning_rate": 1e30}}}
    plan = ComparePlan(tasks=["parity"], methods=methods, seeds=[0], training=TRAINING)
    plan.save(folder / "plan.yaml")
    for cell in plan.cells():
        listen = told.append if cell.label == "wild" else None
        run(cell.recipe, 0, run_directory(folder, cell, 0), task=parity, progress=listen)
    return folder, [run_directory(folder, cell, 0) for cell in plan.cells()], told


def test_the_run_notes_it_and_says_it_once(made):
    _, (fine, wild), told = made
    assert json.loads((fine / "environment.json").read_text())["notes"] == []
    (note,) = json.loads((wild / "environment.json").read_text())["notes"]
    assert note.startswith(NOTE)
    assert [event.note for event in told if event.note] == [note]
    recipe, seed = RunDirectory(wild).read_recipe()
    again = []
    run(recipe, seed, wild, task=parity, progress=again.append)
    assert [event.note for event in again] == [note], "a finished run says it as well"


def test_a_comparison_and_a_report_mark_it_and_keep_the_score(made, capsys):
    folder, (_, wild), _ = made
    found = report(folder)
    rows = {row.label: row for row in found.tables[0].rows}
    assert (rows["fine"].diverged, rows["wild"].diverged) == ((), (0,))
    assert rows["wild"].mean == RunDirectory(wild).result().score
    text = (folder / "comparison.md").read_text()
    assert text.count("(1 of 1 diverged)") == 1
    assert MEANING in text
    show_comparison(found)
    said = capsys.readouterr()
    assert "(1 of 1 diverged)" in said.out
    assert f"1 run diverged. {MEANING}" in " ".join(said.err.split())
    gathered = gather([folder])
    assert "(1 of 1 diverged)" in to_markdown(gathered)
    assert tables.notes(gathered)[0].startswith(f"parity: {NOTE}")


def test_what_is_no_divergence(made):
    result = RunDirectory(made[1][0]).result()
    rows = [{"step": 1, "loss": 0.5}, {"step": 1, "checkpoint": 1}, {"step": 2, "loss": None}]
    assert loss_note(rows[:2], result) == ""
    assert loss_note(rows, result) == "The loss is not a number at 1 of 2 logged steps."
    untrained = replace(result, parameters=0, metrics={"accuracy": 50.0, "loss": None})
    assert not diverged(untrained)
    assert loss_note([], untrained) == "The loss is not a number in the final evaluation."
    assert not diverged(replace(result, metrics={"accuracy": 50.0})), "a task without a loss"
