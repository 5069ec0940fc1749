"""A search finds the best, prunes what falls behind, goes on where it was interrupted, and says which axes matter."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest
import yaml

from cli.calling import call
from search.instant import TASK, instantly
from tasks.tiny_text import save_bert, words, write_jsonl
from unipetl import reporting
from unipetl.errors import MissingPackageError, RunError
from unipetl.experiment.grid import load_plan
from unipetl.experiment.recipe import Recipe
from unipetl.method import Method
from unipetl.search import Search, search, searching
from unipetl.search import study as memory
from unipetl.search.result import Tried, importance, read_result

pytest.importorskip("optuna")
import optuna

TRAINING = {"max_steps": 5, "save_strategy": "no", "logging_steps": 1, "use_cpu": True}


def definition(**more):
    given = {"task": "parity", "budget": 600, "trials": 12, "training": TRAINING, "pruner": "none"}
    return Search(**{**given, **more})


def study_of(folder):
    names = optuna.get_all_study_names(f"sqlite:///{folder / memory.DATABASE}")
    return optuna.load_study(study_name=names[0], storage=f"sqlite:///{folder / memory.DATABASE}")


def test_the_best_is_found_within_the_budget(tmp_path, monkeypatch):
    worker = instantly(monkeypatch)
    events = []
    found = search(definition(trials=8), tmp_path, tasks=TASK, progress=events.append)
    assert len(found.tried) == 8 == len(worker.made)
    assert {one.state for one in found.tried} == {"complete"}
    best = found.best(1)[0]
    assert best.score == 90.0
    assert {next(iter(one["form"])) for one in best.method["modifications"]} == {"low_rank"}
    assert all(one.cost <= found.budget == 600 for one in found.tried)
    assert sum(found.importance.values()) == pytest.approx(1)
    low_rank = [one.score for one in found.tried if one.axes["ffn.form"] == "low_rank"]
    value = next(one for one in found.values if (one.axis, one.value) == ("ffn.form", "low_rank"))
    assert (value.points, value.mean) == (len(low_rank), pytest.approx(sum(low_rank) / len(low_rank)))
    assert [(one.state, one.done) for one in events if one.state == "finished"][-1] == ("finished", 8)
    assert read_result(tmp_path) == found


def test_a_model_whose_labels_only_the_training_file_names_has_them_all(tmp_path):
    rows = [{"text": words(number), "label": ("bad", "good", "so-so")[number % 3]} for number in range(6)]
    files = {name: str(write_jsonl(tmp_path / f"{name}.jsonl", rows)) for name in ("train", "validation")}
    chosen = definition(task="csv-classification", model=str(save_bert(tmp_path / "bert")), options=files)
    skeleton = searching.skeleton(chosen, searching.task_of(chosen, {}))
    assert skeleton.config.num_labels == 3
    assert {one.device.type for one in skeleton.parameters()} == {"meta"}


def points(count, score, seed=0):
    """Complete points whose axes are drawn evenly."""
    draw = random.Random(seed)
    axes = {"where": ["attention", "ffn", "both"], "form": ["low_rank", "bottleneck"], "layers": ["all", "upper half"]}
    drawn = [{name: draw.choice(values) for name, values in axes.items()} for _ in range(count)]
    return [Tried(n, "complete", score(one) + draw.random(), one, {}, 1, ()) for n, one in enumerate(drawn)]


@pytest.mark.parametrize("axis", ["where", "form", "layers"])
@pytest.mark.parametrize("greater", [True, False])
def test_the_axis_that_matters_is_named(axis, greater):
    found = importance(
        points(80, lambda axes: 10.0 * (axes[axis] in ("ffn", "low_rank", "all"))), greater_is_better=greater
    )
    assert max(found, key=found.get) == axis
    assert found[axis] > 0.6
    assert sum(found.values()) == pytest.approx(1)


def test_few_or_equal_points_say_nothing_about_the_axes():
    assert importance(points(7, lambda axes: 1.0), greater_is_better=True) == {}
    equal = [replace(one, score=1.0) for one in points(20, lambda axes: 1.0)]
    assert importance(equal, greater_is_better=True) == {}


def test_every_trial_is_a_run_that_can_be_made_alone(tmp_path, monkeypatch):
    instantly(monkeypatch)
    found = search(definition(trials=3, seeds=[0, 5]), tmp_path, tasks=TASK)
    for one in found.tried:
        assert len(one.runs) == 2
        for run, seed in zip(one.runs, (0, 5), strict=True):
            recipe = Recipe(**yaml.safe_load((tmp_path / run / "recipe.yaml").read_text()))
            assert recipe.seeds == (seed,)
            assert recipe.parsed() == Method.from_plain(one.method)


def test_the_best_are_confirmed_with_other_seeds(tmp_path, monkeypatch):
    instantly(monkeypatch)
    space = {"learning_rate": [1e-3, 1e-2]}
    found = search(definition(trials=6, space=space, seeds=[0, 1000]), tmp_path, tasks=TASK)
    plan = load_plan(tmp_path / "best.yaml", tasks=None)
    assert plan.seeds == (1001, 1002, 1003)
    assert list(plan.methods) == [f"point {one.number}" for one in found.best(3)]
    for one, cell in zip(found.best(3), plan.cells(), strict=True):
        assert cell.recipe.parsed() == Method.from_plain(one.method)
        assert cell.recipe.training["learning_rate"] == one.axes["learning_rate"]


def test_the_same_call_goes_on_and_makes_nothing_twice(tmp_path, monkeypatch):
    worker = instantly(monkeypatch)
    first = search(definition(trials=5), tmp_path, tasks=TASK)
    assert search(definition(trials=5), tmp_path, tasks=TASK) == first
    assert len(worker.made) == 5
    more = search(definition(trials=9), tmp_path, tasks=TASK)
    assert more.tried[:5] == first.tried
    assert len(worker.made) == 9
    assert len({recipe.hash() for recipe in worker.made}) == 9


def test_a_search_depends_on_its_seed_alone(tmp_path, monkeypatch):
    instantly(monkeypatch)
    runs = [search(definition(trials=3, seed=seed), tmp_path / str(n), tasks=TASK) for n, seed in enumerate((0, 0, 1))]
    methods = [[one.method for one in found.tried] for found in runs]
    assert methods[0] == methods[1] != methods[2]


def test_what_falls_behind_is_pruned(tmp_path, monkeypatch):
    left = iter(range(90, 0, -10))
    worker = instantly(monkeypatch, lambda recipe, seed: float(next(left)))  # every point is worse than those before
    found = search(definition(trials=8, pruner="median"), tmp_path, tasks=TASK)
    assert [one.state for one in found.tried] == ["complete"] * 5 + ["pruned"] * 3  # it waits for five
    assert worker.cancelled == 3
    assert [one.score for one in found.tried[5:]] == [None] * 3
    assert not any((tmp_path / run / "metrics.json").exists() for one in found.tried[5:] for run in one.runs)
    assert found.best(1)[0].score == 90.0


def test_an_interrupted_point_is_tried_again(tmp_path, monkeypatch):
    tried = []

    def interrupt(recipe):
        tried.append(recipe.hash())
        if len(tried) == 3:
            raise KeyboardInterrupt

    instantly(monkeypatch, before=interrupt)
    with pytest.raises(KeyboardInterrupt):
        search(definition(trials=6), tmp_path, tasks=TASK)
    assert [one.state for one in read_result(tmp_path).tried] == ["complete"] * 2
    found = search(definition(trials=6), tmp_path, tasks=TASK)
    assert len(found.tried) == 6
    assert tried[3] == tried[2]  # first of all what was interrupted
    assert len(set(tried)) == 6
    trials = study_of(tmp_path).trials
    (number,) = (trial.number for trial in trials if "interrupted" in trial.user_attrs)
    assert sum(trial.user_attrs.get("continues") == number for trial in trials) == 1


def test_what_a_killed_process_left_is_taken_up(tmp_path, monkeypatch):
    instantly(monkeypatch)
    search(definition(trials=2), tmp_path, tasks=TASK)
    study = study_of(tmp_path)
    lost = study.ask()  # as if the process had been killed here
    lost.suggest_categorical("where", ["attention", "ffn", "both"])
    lost.set_user_attr("folder", str(tmp_path.resolve()))
    elsewhere = study.ask()
    elsewhere.set_user_attr("folder", "/somewhere/else")
    search(definition(trials=3), tmp_path, tasks=TASK)
    states = [trial.state.name for trial in study_of(tmp_path).trials]
    assert (states[lost.number], states[elsewhere.number]) == ("FAIL", "RUNNING")


def test_a_failure_is_kept_with_its_reason(tmp_path, monkeypatch):
    def score(recipe, seed):
        return float("nan") if "head_attention" in str(recipe.method) else 50.0

    instantly(monkeypatch, score)
    space = {"form": ["prefix", "low_rank"], "representation": ["attention.heads"]}
    found = search(definition(trials=6, space=space), tmp_path, tasks=TASK)
    failed = [one for one in found.tried if one.state == "failed"]
    assert failed
    assert all("not a number" in one.reason for one in failed)
    assert {one.score for one in found.best()} == {50.0}


def test_a_space_that_is_exhausted_ends_the_search(tmp_path, monkeypatch):
    instantly(monkeypatch)
    monkeypatch.setattr(searching, "EXHAUSTED", 10)
    space = {
        "where": ["ffn"], "representation": ["ffn"], "form": ["low_rank"], "insertion": ["parallel"],
        "scale": [1, 4], "layers": ["all"],
    }  # fmt: skip
    found = search(definition(trials=10, space=space), tmp_path, tasks=TASK)
    assert len(found.tried) == 2
    assert found.refused > 0


def test_another_search_and_other_folders_are_left_alone(tmp_path, monkeypatch):
    instantly(monkeypatch)
    search(definition(trials=1), tmp_path / "a", tasks=TASK)
    with pytest.raises(RunError, match=r"another search .it differs in budget"):
        search(definition(trials=1, budget=700), tmp_path / "a", tasks=TASK)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mine.txt").touch()
    with pytest.raises(RunError, match="holds no search"):
        search(definition(), tmp_path / "b", tasks=TASK)
    with pytest.raises(RunError, match=r"the storage 'nothing://x' cannot be opened"):
        search(definition(), tmp_path / "c", tasks=TASK, storage="nothing://x")
    with pytest.raises(RunError, match="jobs"):
        search(definition(), tmp_path / "d", tasks=TASK, jobs=0)


def test_a_storage_can_be_elsewhere(tmp_path, monkeypatch):
    instantly(monkeypatch)
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    search(definition(trials=3), tmp_path / "a", tasks=TASK, storage=url)
    found = search(definition(trials=5), tmp_path / "b", tasks=TASK, storage=url)
    assert len(found.tried) == 5  # three of them were made by the other
    assert not (tmp_path / "a" / memory.DATABASE).exists()


def test_a_storage_that_cannot_be_opened_shows_no_password(tmp_path):
    with pytest.raises(RunError, match=r"'nothing://me:\*\*\*@host/db' cannot be opened") as error:
        memory.open_study(definition(), tmp_path, "nothing://me:s3cr@t@host/db", greater_is_better=True)
    assert "s3cr" not in str(error.value)
    assert memory.without_password("sqlite:////tmp/a@b.db") == "sqlite:////tmp/a@b.db"


def test_without_optuna_the_message_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'unipetl\[search\]'"):
        search(definition(), tmp_path / "out", tasks=TASK)
    assert not (tmp_path / "out").exists()


def test_a_search_has_a_report(tmp_path, monkeypatch):
    instantly(monkeypatch)
    search(definition(trials=8, pruner="none", name="my search"), tmp_path, tasks=TASK)
    found = reporting.gather([tmp_path])
    assert found.title == "my search"
    assert len(found.columns[0].experiments) <= 10
    page = reporting.to_html(found)
    for part in ("Which axes matter", "How each value did", "All points", "unipetl search search.yaml"):
        assert part in page
    assert "| point 0 | complete |" in reporting.to_markdown(found)
    (tmp_path / "search.json").write_text("{")
    with pytest.raises(RunError, match="damaged"):
        reporting.gather([tmp_path])
    (tmp_path / "search.json").unlink()
    with pytest.raises(RunError, match="found nothing yet"):
        reporting.gather([tmp_path])


@pytest.mark.slow
def test_real_runs_in_real_processes(tmp_path, monkeypatch):
    from experiment.toy_task import with_the_tests

    monkeypatch.setenv("PYTHONPATH", with_the_tests())
    tasks = {"parity": "experiment.toy_task:parity"}
    events = []
    training = TRAINING | {"per_device_train_batch_size": 4}
    whole = definition(trials=3, training=training, pruner="median")
    found = search(whole, tmp_path, tasks=tasks, jobs=2, progress=events.append)
    assert [one.state for one in found.tried] == ["complete"] * 3
    judged = [event for event in events if event.run and "eval_accuracy" in event.run.values]
    assert len(judged) == 15
    log = (tmp_path / found.tried[0].runs[0] / "log.jsonl").read_text().splitlines()
    assert sum("eval_accuracy" in json.loads(line) for line in log) == 5
    assert call("report", tmp_path).exit_code == 0
