from __future__ import annotations

import dataclasses
import re

import pytest

from unipetl.errors import TaskError
from unipetl.tasks import TASKS, Prepared, Task, get_task


def test_every_task_is_found_by_its_name():
    assert [get_task(task.name) for task in TASKS] == list(TASKS)
    assert len({task.name for task in TASKS}) == len(TASKS) >= 2


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_every_task_describes_itself(task):
    assert isinstance(task, Task)
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", task.name)
    assert task.kind in ("classification", "seq2seq", "language-modelling")
    assert task.metric
    assert task.greater_is_better is (task.metric != "perplexity")
    assert len(task.description) < 100


def test_a_misspelt_task_is_told_its_nearest():
    with pytest.raises(TaskError, match=r"unknown task 'sentimant'. Did you mean 'sentiment'\? Known: causal-lm, "):
        get_task("sentimant")


def test_a_task_that_cannot_prepare_cannot_be_made():
    with pytest.raises(TypeError, match="abstract"):
        type("Half", (Task,), {})()


def test_what_is_prepared_cannot_be_changed():
    prepared = Prepared(**{field.name: None for field in dataclasses.fields(Prepared)})
    with pytest.raises(dataclasses.FrozenInstanceError):
        prepared.model = 1
