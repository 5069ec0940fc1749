"""The small study: its two stages, which rates are taken, what is written, and how it goes on. Nothing is trained."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tasks.tiny_text import save_bert, words, write_jsonl
from unipetl.errors import RunError
from unipetl.experiment import comparing
from unipetl.experiment.directory import RunDirectory, RunResult, write_json
from unipetl.experiment.grid import load_plan
from unipetl.experiment.table import read
from unipetl.reproduction import rates, small
from unipetl.reproduction.claims_page import findings, p_text, write_claims
from unipetl.reproduction.small_methods import METHODS, ROWS, SHARES, methods_of
from unipetl.reproduction.small_tasks import PRONOUNCE, SST2, small_tasks

SEEDS = (0, 1, 2)


def write_data(place):
    folder = place / "data" / "sst2"
    folder.mkdir(parents=True)
    rows = [{"sentence": words(n % 7, 3), "label": n % 2} for n in range(30)]
    for name in ("train", "dev"):
        write_jsonl(folder / f"{name}.jsonl", rows)
    return folder.parent


@pytest.fixture
def data(tmp_path):
    return write_data(tmp_path)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The study does not change, and finding every method's size takes a second."""
    place = tmp_path_factory.mktemp("study")
    tasks = small_tasks(("sst2",), data=write_data(place), model=save_bert(place / "bert"))
    return small.small_study(tasks, seeds=SEEDS)


@pytest.fixture
def trained(monkeypatch):
    """Let runs be made without training; the score is a function of the label, the rate and the seed."""
    made = []

    def score(label, rate, seed):
        name = label.partition(" @")[0]
        return 80.0 + len(name) + (rate == {"MAM": 0.001}.get(name, 0.003)) + 0.1 * seed * (len(name) % 3)

    def compare(plan, directory, *, jobs, progress, replace):
        directory.mkdir(parents=True, exist_ok=True)
        if (directory / "plan.yaml").is_file() and not replace:
            comparing._refuse_another(plan, load_plan(directory / "plan.yaml"), directory)
        plan.save(directory / "plan.yaml")
        for cell in plan.cells():
            for seed in plan.seeds:
                run = RunDirectory(directory / cell.folder() / f"seed-{seed}")
                if run.metrics.is_file():
                    continue
                made.append((cell.label, seed))
                run.claim(cell.recipe, seed)
                value = score(cell.label, cell.recipe.training["learning_rate"], seed)
                write_json(run.metrics, result(run.path, cell, seed, value).to_dict())
        return read(directory, plan)

    monkeypatch.setattr(small, "compare", compare)
    monkeypatch.setattr("unipetl.files.flush", lambda path: None)  # hundreds of files; no crash is tried here
    return made


def result(path, cell, seed, score):
    return RunResult(
        path=path, recipe=cell.recipe.hash(), task=cell.task, method=cell.recipe.method_text(), seed=seed,
        metric="accuracy", score=score, greater_is_better=True, metrics={"accuracy": score}, parameters=10,
        paper_parameters=10, share=0.01, base_parameters=1000, steps=5, train_seconds=1.0, evaluate_seconds=1.0,
        peak_memory_bytes=1,
    )  # fmt: skip


def test_rates_are_chosen_on_other_examples_and_another_seed(study):
    (task,) = study.tasks
    first, second = study.rates_plan(task), study.plan({"sst2": {one.label: 0.1 for one in METHODS}})
    assert set(first.seeds) & set(second.seeds) == set()
    tuning, judged = first.tasks["sst2"].options, second.tasks["sst2"].options
    assert (tuning["evaluate_on"], judged["evaluate_on"]) == ("development", "rest")
    assert {**tuning, "evaluate_on": "rest"} == judged, "the same files, parted at the same place"
    assert judged["validation"].endswith("dev.jsonl")
    assert PRONOUNCE.part(tuning=True)["options"] == {"evaluate_on": "development"}
    assert "options" not in PRONOUNCE.part(tuning=False)


def test_a_seed_that_chooses_rates_does_not_judge_them(study):
    with pytest.raises(RunError, match="seed 101: learning rates are chosen with it"):
        small.small_study(study.tasks, seeds=(0, 101))


def test_the_best_rate_of_each_method_is_taken(study, trained, tmp_path):
    chosen = small.run_small(study, tmp_path / "out")
    assert chosen["sst2"]["MAM"] == 0.001
    assert chosen["sst2"]["LoRA (ffn)"] == 0.003
    plan = study.plan(chosen)
    assert {cell.recipe.training["learning_rate"] for cell in plan.cells() if cell.label == "MAM"} == {0.001}


def test_a_best_rate_at_an_end_has_the_next_one_tried_too(study, trained, tmp_path):
    first = study.first_rates(study.tasks[0])
    assert min(first["MAM"]) == 0.001, "the best rate of these runs is at an end"
    small.run_small(study, tmp_path / "out")
    found = rates.scores(tmp_path / "out", "sst2")
    assert list(found["MAM"]) == [0.0003, *first["MAM"]]
    assert list(found["LoRA (ffn)"]) == list(first["LoRA (ffn)"]), "its best is between others"
    assert list(found["full fine-tuning"]) == [3e-6, 1e-5, 3e-5, *first["full fine-tuning"]], "equal ones: three times"
    page = write_claims(tmp_path / "out").to_markdown()
    assert "| 3e-06 (end) |" in page
    assert "| 0.001 | 0.0003, 0.001, 0.003, 0.01 |" in page
    assert len(trained) > study.runs()


def test_the_next_rates_of_the_series():
    assert [rates.neighbour(one, up=True) for one in (0.001, 0.003, 0.1, 0.3)] == [0.003, 0.01, 0.3, 1.0]
    assert [rates.neighbour(one, up=False) for one in (0.001, 0.003, 0.1, 1.0)] == [0.0003, 0.001, 0.03, 0.3]


def test_a_rate_that_failed_is_an_end_beyond_which_nothing_is_tried():
    assert rates.beyond({0.01: 3.0, 0.03: 4.0}, [0.01, 0.03, 0.1]) is None
    assert rates.beyond({0.01: 3.0, 0.03: 4.0}, [0.01, 0.03]) == 0.1
    assert rates.beyond({0.01: 5.0, 0.03: 4.0}, [0.01, 0.03]) == 0.003
    assert rates.beyond({0.01: 1.0, 0.03: 4.0, 0.1: 3.0}, [0.01, 0.03, 0.1]) is None


def test_no_probability_is_said_to_be_zero():
    assert [p_text(one) for one in (0.0, 0.00049, 0.0005, 0.0449, 1.0)] == [
        "< 0.001", "< 0.001", "0.001", "0.045", "1.000",
    ]  # fmt: skip


def test_the_same_study_goes_on_and_runs_nothing_twice(study, trained, tmp_path):
    small.run_small(study, tmp_path / "out")
    before = len(trained)
    small.run_small(study, tmp_path / "out")
    assert len(trained) == before
    small.run_small(replace(study, seeds=(*SEEDS, 9)), tmp_path / "out")
    assert len(trained) == before + len(METHODS)


def test_equal_scores_take_the_smaller_rate_and_a_method_without_a_result_is_told(
    study, trained, tmp_path, monkeypatch
):
    small.run_small(study, tmp_path / "out")
    for place in (tmp_path / "out" / "rates").iterdir():
        for cell in load_plan(place / "plan.yaml").cells():
            for seed in small.TUNING_SEEDS:
                run = RunDirectory(place / cell.folder() / f"seed-{seed}")
                if cell.label.startswith("MAM @") and seed == small.TUNING_SEEDS[-1]:
                    run.metrics.unlink()
                elif cell.label.startswith("LoRA (ffn) @"):
                    write_json(run.metrics, result(run.path, cell, seed, 50.0).to_dict())
    monkeypatch.setattr(small, "compare", lambda plan, place, **_: None)
    with pytest.raises(RunError, match="no learning rate worked with every seed for MAM on sst2"):
        small.run_small(study, tmp_path / "out")
    assert rates.best(rates.scores(tmp_path / "out", "sst2")["LoRA (ffn)"]) == 0.001


def test_a_rate_is_judged_by_its_mean_and_one_that_a_seed_diverged_at_is_none(study, trained, tmp_path):
    small.run_small(study, tmp_path / "out")
    place = tmp_path / "out" / "rates" / "sst2"
    told = {"LoRA (ffn) @ 0.003": (99.0, 40.0, 99.0), "LoRA (ffn) @ 0.001": (80.0, 80.0, 80.0)}
    for cell in load_plan(place / "plan.yaml").cells():
        for seed, score in zip(small.TUNING_SEEDS, told.get(cell.label, ()), strict=False):
            run = RunDirectory(place / cell.folder() / f"seed-{seed}")
            write_json(run.metrics, result(run.path, cell, seed, score).to_dict())
        run = RunDirectory(place / cell.folder() / f"seed-{small.TUNING_SEEDS[1]}")
        if cell.label == "MAM @ 0.003":
            write_json(run.metrics, result(run.path, cell, small.TUNING_SEEDS[1], float("nan")).to_dict())
        elif cell.label == "MAM @ 0.01":  # whoever answers at random has a score all the same
            lost = replace(result(run.path, cell, small.TUNING_SEEDS[1], 99.0), metrics={"loss": float("nan")})
            write_json(run.metrics, lost.to_dict())
    found = rates.scores(tmp_path / "out", "sst2")
    assert found["LoRA (ffn)"][0.001] == 80
    assert found["LoRA (ffn)"][0.003] == pytest.approx(238 / 3)
    assert {0.003, 0.01} & set(found["MAM"]) == set()
    assert rates.seeds_of(tmp_path / "out", "sst2") == small.TUNING_SEEDS
    assert "the mean over seeds 100, 101, 102;" in write_claims(tmp_path / "out").to_markdown()


def test_rates_that_a_search_before_had_widened_are_not_told_of_this_one(study, trained, tmp_path):
    small.run_small(replace(study, tuning_seeds=(100,)), tmp_path / "out")
    assert 0.0003 in rates.scores(tmp_path / "out", "sst2")["MAM"], "its best was at an end"
    place = tmp_path / "out" / "rates" / "sst2"
    plan = study.rates_plan(study.tasks[0])
    for cell in plan.cells():
        for seed in small.TUNING_SEEDS:
            run = RunDirectory(place / cell.folder() / f"seed-{seed}")
            run.path.mkdir(parents=True, exist_ok=True)
            rate = cell.recipe.training["learning_rate"]
            at_end = rate in (min(study.first_rates(study.tasks[0])[cell.label.partition(" @")[0]]),)
            write_json(run.metrics, result(run.path, cell, seed, 10.0 if at_end else 50.0 - rate).to_dict())
    small.run_small(study, tmp_path / "out")
    assert 0.0003 not in rates.scores(tmp_path / "out", "sst2")["MAM"]


def test_runs_that_diverged_are_marked_among_the_claims(study, trained, tmp_path):
    chosen = small.run_small(study, tmp_path / "out")
    assert "diverged" not in write_claims(tmp_path / "out").to_markdown()
    for cell in study.plan(chosen).cells():
        if cell.label == "MAM":
            run = RunDirectory(tmp_path / "out" / "study" / cell.folder() / "seed-1")
            lost = replace(result(run.path, cell, 1, 50.0), metrics={"loss": float("nan"), "accuracy": 50.0})
            write_json(run.metrics, lost.to_dict())
    page = write_claims(tmp_path / "out").to_markdown()
    assert "(1 of 3 diverged)" in page
    assert "after training the loss is not a number" in page


def test_a_study_takes_more_tuning_seeds_and_other_rates_by_them_but_no_other_study(study, trained, tmp_path):
    first = small.run_small(replace(study, tuning_seeds=(100,)), tmp_path / "out")
    place = tmp_path / "out" / "rates" / "sst2"
    for cell in load_plan(place / "plan.yaml").cells():
        if cell.label == "MAM @ 0.01":
            run = RunDirectory(place / cell.folder() / "seed-100")
            write_json(run.metrics, result(run.path, cell, 100, 99.0).to_dict())
    again = small.run_small(study, tmp_path / "out")
    assert (first["sst2"]["MAM"], again["sst2"]["MAM"]) == (0.001, 0.01)
    plan = load_plan(tmp_path / "out" / "study" / "plan.yaml")
    assert {cell.recipe.training["learning_rate"] for cell in plan.cells() if cell.label == "MAM"} == {0.01}
    with pytest.raises(RunError, match=r"holds another study.*--output"):
        small.run_small(replace(study, seeds=SEEDS[:1]), tmp_path / "out")
    with pytest.raises(RunError, match=r"holds another study.*--output"):
        small.run_small(replace(study, tuning_seeds=(7,)), tmp_path / "out")


def test_the_claims_are_written_as_a_page_and_as_data(study, trained, tmp_path):
    small.run_small(study, tmp_path / "out")
    found = write_claims(tmp_path / "out")
    page = (tmp_path / "out" / "claims.md").read_text(encoding="utf-8")
    data = json.loads((tmp_path / "out" / "claims.json").read_text(encoding="utf-8"))
    assert {one["claim"] for one in data["verdicts"]} == {one.claim.key for one in found.judged}
    assert {one["verdict"] for one in data["verdicts"]} <= {"holds", "does not hold", "too close to call"}
    for one in METHODS:
        assert one.label in page
    assert "MAM matches full fine-tuning." in page
    assert "mam-rest" not in {one["claim"] for one in data["verdicts"]}, "that claim is about models that write"


def test_a_study_that_is_not_there_is_told(tmp_path):
    with pytest.raises(RunError, match=r"there is no plan.yaml in study/ \(no study\)"):
        findings(tmp_path)
    (tmp_path / "rates").mkdir()
    with pytest.raises(RunError, match="the study has not begun"):
        findings(tmp_path)


def test_every_method_is_at_its_budget_on_the_real_model():
    """On MiniLM's dimensions every method of a budget trains the same number of parameters within a tenth."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    import unipetl
    from unipetl.experiment.budget import fill

    config = BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
    with torch.device("meta"):
        model = BertForSequenceClassification(config)
    whole = sum(one.numel() for one in model.parameters())
    for one in METHODS:
        if one.size is None or one.largest < 4096:
            continue
        budget = SHARES["classification"].of(one.size) * whole
        text = fill(one.notation("classification"), model, round(budget), largest=one.largest)
        assert unipetl.plan(text, model).added_parameters == pytest.approx(budget, rel=0.13), text


def test_tables_name_methods_of_the_study():
    assert {label for labels in ROWS.values() for label in labels} <= {one.label for one in METHODS}
    assert methods_of("claims") == METHODS
    assert methods_of("table5")[0].label == "parallel adapter (ffn)"
    with pytest.raises(RunError, match="Did you mean 'table5'"):
        methods_of("tabel5")


def test_data_is_asked_for_by_name(tmp_path, data):
    with pytest.raises(RunError, match="Did you mean 'sst2'"):
        small_tasks(("sst",))
    with pytest.raises(RunError, match="task 'sst2' needs files"):
        small_tasks(("sst2",))
    with pytest.raises(RunError, match="does not exist"):
        small_tasks(("sst2",), data=tmp_path / "nowhere")
    (data / "sst2" / "dev.jsonl").unlink()
    with pytest.raises(
        RunError, match=r"has no validation file; expected one of validation, dev, .*Found: train.jsonl"
    ):
        small_tasks(("sst2",), data=data)


def test_a_quick_study_has_few_examples(data):
    (task,) = small_tasks(("sst2",), data=data, model="x", quick=True)
    assert (task.limit, task.evaluation_limit) == (160, 60)
    assert SST2.evaluation_limit is None
