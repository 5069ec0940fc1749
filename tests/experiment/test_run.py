"""A run's directory can be read, continued after a kill, recognised when done, and used afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from safetensors.torch import load_file

from experiment.toy_task import backwards, parity, with_the_tests
from unipetl.errors import CorruptFileError, PlanError, RunError, TaskError
from unipetl.experiment import Recipe, evaluate, predict, run, running
from unipetl.experiment.directory import RunDirectory

TRAINING = {
    "max_steps": 6,
    "per_device_train_batch_size": 4,
    "learning_rate": 0.02,
    "logging_steps": 1,
    "save_steps": 2,
    "use_cpu": True,
}
TASKS = {"parity": parity, "backwards": backwards}


def recipe(task="parity", method="mam(length=2, rank=2, mlp=8)", **more):
    return Recipe(**{"task": task, "method": method, "training": TRAINING, **more})


class StopError(Exception):
    """What a listener raises to stop a run in the middle."""


def stop_after(step):
    def listen(progress):
        if progress.phase == "train" and progress.step > step:
            raise StopError

    return listen


def steady(result):
    """What must not depend on the clock."""
    return {
        key: value for key, value in result.to_dict().items() if "seconds" not in key and key != "peak_memory_bytes"
    }


@pytest.mark.parametrize("task", TASKS)
def test_a_run_leaves_everything_about_it(tmp_path, task):
    phases = []
    result = run(recipe(task), 3, tmp_path / "run", task=TASKS[task], progress=lambda p: phases.append(p.phase))
    names = {path.name for path in (tmp_path / "run").iterdir()}
    files = {"recipe.yaml", "environment.json", "plan.json", "log.jsonl", "predictions.jsonl", "metrics.json"}
    assert names == {*files, "adapter"}
    assert list(dict.fromkeys(phases)) == ["prepare", "attach", "train", "evaluate", "save", "done"]
    assert result.seed == 3
    assert result.steps == 6
    assert result.score == result.metrics[TASKS[task].metric]
    assert 0 < result.parameters < result.base_parameters
    assert result.train_seconds > 0
    assert result.peak_memory_bytes > 50e6
    assert result.share == pytest.approx(result.parameters / result.base_parameters)
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log if "loss" in line] == [1, 2, 3, 4, 5, 6]
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["seed"] == 3
    assert {"torch", "transformers"} <= set(environment["packages"])
    predictions = (tmp_path / "run" / "predictions.jsonl").read_text().splitlines()
    assert len(predictions) == {"parity": 12, "backwards": 8}[task]
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["metrics"] == result.metrics


def test_a_finished_run_is_returned_without_work(tmp_path):
    first = run(recipe(), 0, tmp_path, task=parity)
    phases = []
    again = run(
        recipe(name="renamed", seeds=[0, 1]), 0, tmp_path, task=parity, progress=lambda p: phases.append(p.phase)
    )
    assert again == first
    assert phases == ["done"]


def test_a_seed_decides_everything_and_another_one_something(tmp_path):
    first = run(recipe(), 5, tmp_path / "a", task=parity)
    second = run(recipe(), 5, tmp_path / "b", task=parity)
    other = run(recipe(), 6, tmp_path / "c", task=parity)
    assert steady(first) == steady(second)
    adapters = [load_file(tmp_path / name / "adapter" / "unipetl.safetensors") for name in "abc"]
    assert all(bool((adapters[0][key] == adapters[1][key]).all()) for key in adapters[0])
    assert any(bool((adapters[0][key] != adapters[2][key]).any()) for key in adapters[0])
    assert first.recipe == other.recipe


def test_an_interrupted_run_goes_on_from_its_last_checkpoint(tmp_path):
    whole = run(recipe(), 0, tmp_path / "whole", task=parity)
    with pytest.raises(StopError):
        run(recipe(), 0, tmp_path / "half", task=parity, progress=stop_after(4))
    assert not (tmp_path / "half" / "metrics.json").exists()
    with (tmp_path / "half" / "log.jsonl").open("a") as file:
        file.write('{"step": 5, "sec')
    steps = []
    done = run(recipe(), 0, tmp_path / "half", task=parity, progress=lambda p: steps.append(p.step))
    assert min(step for step in steps if step) == 5
    assert steady(done) == steady(whole)
    log = [json.loads(line) for line in (tmp_path / "half" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log if "loss" in line] == [1, 2, 3, 4, 5, 6]
    seconds = [line["seconds"] for line in log]
    assert seconds == sorted(seconds)
    assert done.train_seconds >= seconds[-1]


@pytest.mark.slow
def test_a_killed_process_goes_on_from_its_last_checkpoint(tmp_path):
    code = f"""
        from experiment.test_run import recipe, run, parity
        import time
        run(recipe(), 0, {str(tmp_path / "half")!r}, task=parity, progress=lambda p: time.sleep(0.3))
    """
    environment = {**os.environ, "PYTHONPATH": with_the_tests()}
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], env=environment) as child:
        try:
            patience = time.monotonic() + 120
            while not list((tmp_path / "half").glob("checkpoints/checkpoint-2/trainer_state.json")):
                assert time.monotonic() < patience
                assert child.poll() is None
                time.sleep(0.02)
            with pytest.raises(RunError, match=f"in use by process {child.pid} on "):
                run(recipe(), 0, tmp_path / "half", task=parity)
        finally:
            child.send_signal(signal.SIGKILL)
    assert not (tmp_path / "half" / "metrics.json").exists()
    steps = []
    done = run(recipe(), 0, tmp_path / "half", task=parity, progress=lambda p: steps.append(p.step))
    assert min(step for step in steps if step) > 2
    assert steady(done) == steady(run(recipe(), 0, tmp_path / "whole", task=parity))


def test_resume_false_starts_again(tmp_path):
    run(recipe(), 0, tmp_path, task=parity)
    phases = []
    run(recipe(), 0, tmp_path, task=parity, resume=False, progress=lambda p: phases.append(p.phase))
    assert "train" in phases


def test_another_recipes_directory_is_refused(tmp_path):
    run(recipe(method="none"), 0, tmp_path, task=parity)
    with pytest.raises(RunError, match=r"another recipe \(method: 'none' there, 'bitfit' here\).*another directory"):
        run(recipe(method="bitfit"), 0, tmp_path, task=parity)
    with pytest.raises(RunError, match=r"seeds: 0 there, 1 here"):
        run(recipe(method="none"), 1, tmp_path, task=parity)


def test_a_directory_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("chapter 1")
    with pytest.raises(RunError, match="not empty and holds no run"):
        run(recipe(), 0, tmp_path, task=parity)
    with pytest.raises(RunError, match="is a file"):
        run(recipe(), 0, tmp_path / "thesis.tex", task=parity)
    assert (tmp_path / "thesis.tex").read_text() == "chapter 1"


def test_zero_shot_only_evaluates(tmp_path):
    result = run(recipe("backwards", method="none"), 0, tmp_path, task=backwards)
    assert (result.parameters, result.share, result.steps, result.train_seconds) == (0, 0.0, 0, 0.0)
    assert not (tmp_path / "adapter").exists()
    assert evaluate(tmp_path, task=backwards)["right"] == result.score


@pytest.mark.parametrize(("task", "method"), [("parity", "full"), ("backwards", "prefix_tuning(length=2, mlp=8)")])
def test_a_saved_run_scores_what_it_scored(tmp_path, task, method):
    result = run(recipe(task, method), 2, tmp_path, task=TASKS[task])
    again = evaluate(tmp_path, task=TASKS[task])
    assert next(iter(again)) == TASKS[task].metric
    assert again == pytest.approx(result.metrics, rel=1e-5)
    assert set(evaluate(tmp_path, limit=2, task=TASKS[task])) == set(again)


@pytest.mark.parametrize("task", TASKS)
def test_lines_of_ones_own_are_predicted(tmp_path, task):
    run(recipe(task), 0, tmp_path / "run", task=TASKS[task])
    lines = tmp_path / "lines.txt"
    lines.write_text("1 2 3\n\n4 5\n")
    rows = predict(tmp_path / "run", lines, output=tmp_path / "out.jsonl", task=TASKS[task])
    assert [row["input"] for row in rows] == ["1 2 3", "4 5"]
    assert rows == [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert rows == predict(tmp_path / "run", ["1 2 3", "4 5"], task=TASKS[task])
    if task == "parity":
        assert all(0.5 <= row["probability"] <= 1 for row in rows)
    stored = predict(tmp_path / "run", task=TASKS[task])
    assert "correct" in stored[0]


def test_wrong_uses_say_what_is_wrong(tmp_path):
    run(recipe(method="bitfit"), 0, tmp_path / "run", task=parity)
    with pytest.raises(RunError, match="list of texts or a Path"):
        predict(tmp_path / "run", "1 2 3", task=parity)
    with pytest.raises(RunError, match="no inputs"):
        predict(tmp_path / "run", [], task=parity)
    with pytest.raises(RunError, match="cannot read the inputs"):
        predict(tmp_path / "run", tmp_path / "absent.txt", task=parity)
    (tmp_path / "compared").mkdir()
    (tmp_path / "compared" / "plan.yaml").touch()
    for name, why in {"nowhere": "no such directory", "run/metrics.json": "a file", "compared": "its runs lie"}.items():
        with pytest.raises(RunError, match=f"is no run: .*{why}"):
            evaluate(tmp_path / name, task=parity)
    with pytest.raises(RunError, match="the task given is 'backwards'"):
        run(recipe(), 0, tmp_path / "other", task=backwards)
    with pytest.raises(TaskError, match="unknown task 'parity'"):
        run(recipe(), 0, tmp_path / "other")
    assert not (tmp_path / "other").exists()
    with pytest.raises(RunError, match="'generation_num_beams' is for tasks that generate"):
        run(recipe(training={"generation_num_beams": 2}), 0, tmp_path / "beams", task=parity)
    with pytest.raises(RunError, match="transformers refuses these arguments"):
        run(recipe(training={"load_best_model_at_end": True}), 0, tmp_path / "best", task=parity)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"method": "lora(at='ffn.gate')"}, PlanError),
        ({"training": {"load_best_model_at_end": True}}, RunError),
        ({"training": {"generation_num_beams": 2}}, RunError),
    ],
)
def test_what_cannot_run_leaves_no_directory_and_an_old_run_alone(tmp_path, wrong, error):
    with pytest.raises(error):
        run(recipe(**wrong), 0, tmp_path / "made" / "run", task=parity)
    assert list(tmp_path.iterdir()) == []

    files = RunDirectory(tmp_path / "run")
    files.claim(recipe(**wrong), 0)
    files.log.write_text("{}\n")
    with pytest.raises(error):
        run(recipe(**wrong), 0, files.path, task=parity, resume=False)
    assert {path.name for path in files.path.iterdir()} == {"recipe.yaml", "log.jsonl"}


@pytest.mark.parametrize(
    ("training", "said"),
    [
        ({"per_device_train_batch_size": 0}, "ValueError: batch_size should be"),
        ({"learning_rate": -1}, "ValueError: Invalid learning rate"),
        (
            {
                "eval_strategy": "steps",
                "eval_steps": 1,
                "load_best_model_at_end": True,
                "metric_for_best_model": "nothing",
            },
            "KeyError: The `metric_for_best_model` training argument is set to 'eval_nothing'",
        ),
    ],
)
def test_what_transformers_refuses_while_it_works_is_said_and_leaves_nothing(tmp_path, training, said):
    with pytest.raises(RunError, match=f"training: transformers gave up with {said}") as caught:
        run(recipe(training={**TRAINING, **training}), 0, tmp_path / "made" / "run", task=parity)
    assert caught.value.__cause__ is not None
    assert list(tmp_path.iterdir()) == []


def test_an_example_above_the_token_budget_leaves_nothing_that_refuses_the_mended_recipe(tmp_path):
    folder = tmp_path / "made" / "run"
    with pytest.raises(RunError, match="max_tokens_per_batch is 3, and the longest example alone has 8 tokens"):
        run(recipe(training={**TRAINING, "max_tokens_per_batch": 3}), 0, folder, task=parity)
    assert list(tmp_path.iterdir()) == []
    assert run(recipe(training={**TRAINING, "max_tokens_per_batch": 32}), 0, folder, task=parity).steps == 6


def test_what_a_refusal_leaves_of_an_older_run_is_all_of_it(tmp_path, monkeypatch):
    with pytest.raises(StopError):
        run(recipe(), 0, tmp_path, task=parity, progress=stop_after(4))
    with monkeypatch.context() as patch:
        patch.setattr(running, "final_evaluation", lambda *_: {}["accuracy"])
        with pytest.raises(RunError, match="KeyError: accuracy"):
            run(recipe(), 0, tmp_path, task=parity)
    steps = []
    run(recipe(), 0, tmp_path, task=parity, progress=lambda p: steps.append(p.step))
    assert 1 not in steps


def test_a_directory_has_one_run_at_a_time(tmp_path):
    refused = []

    def second(progress):
        if progress.phase == "train" and not refused:
            with pytest.raises(RunError, match=f"in use by process {os.getpid()} on .*another directory") as caught:
                run(recipe(), 0, tmp_path, task=parity)
            refused.append(caught)

    done = run(recipe(), 0, tmp_path, task=parity, progress=second)
    assert len(refused) == 1
    assert run(recipe(), 0, tmp_path, task=parity) == done


def test_damage_is_named(tmp_path):
    run(recipe(method="bitfit"), 0, tmp_path, task=parity)
    weights = tmp_path / "adapter" / "unipetl.safetensors"
    intact = weights.read_bytes()
    weights.write_bytes(intact[:-2] + b"\x00\x01")
    with pytest.raises(CorruptFileError, match=r"unipetl\.safetensors"):
        evaluate(tmp_path, task=parity)
    weights.write_bytes(intact)
    metrics = (tmp_path / "metrics.json").read_text()
    (tmp_path / "metrics.json").write_text(metrics[:40])
    with pytest.raises(RunError, match=r"metrics\.json' is damaged.*delete it"):
        run(recipe(method="bitfit"), 0, tmp_path, task=parity)
    (tmp_path / "metrics.json").unlink()
    with pytest.raises(RunError, match="not finished"):
        evaluate(tmp_path, task=parity)
    (tmp_path / "recipe.yaml").write_text("task: parity\nmethod: bitfit\ntraining: {lerning_rate: 1}\n")
    with pytest.raises(RunError, match=r"recipe\.yaml:3: training\.lerning_rate"):
        evaluate(tmp_path, task=parity)


def test_the_best_model_is_what_is_saved(tmp_path):
    training = {
        **TRAINING,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "load_best_model_at_end": True,
        "metric_for_best_model": "loss",
        "greater_is_better": True,
    }
    result = run(recipe(training=training), 0, tmp_path, task=parity)
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    losses = [line["eval_loss"] for line in log if "eval_loss" in line]
    assert len(losses) == 3
    assert result.metrics["loss"] == pytest.approx(max(losses), abs=1e-4)
