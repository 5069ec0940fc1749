"""Whole runs of the paper's tasks and of a user's own files, on tiny models of every kind."""

from __future__ import annotations

import json
import math

import pytest
import torch

from tasks.tiny_text import SAVE, words, write_jsonl
from unipetl.errors import RecipeError, RunError, TaskError
from unipetl.experiment import ComparePlan, Recipe, evaluate, load_plan, load_recipe, predict, run
from unipetl.experiment.directory import read_lines
from unipetl.tasks import CausalLm, XSum

XSUM = [{"document": words(*range(number, number + 6)), "summary": words(number, 7)} for number in range(9)]
MNLI = [{"premise": words(n, 2), "hypothesis": words(3), "label": n % 3} for n in range(9)]
TEXTS = [{"text": words(*range(number % 4 + 1)), "about": words(number)} for number in range(9)]
TRAINING = {"max_steps": 4, "learning_rate": 0.01, "use_cpu": True, "max_tokens_per_batch": 64}
BEST = {"eval_strategy": "steps", "eval_steps": 2, "save_steps": 2, "load_best_model_at_end": True}


@pytest.fixture
def model(tmp_path):
    return lambda name: SAVE[name](tmp_path / name)


def files(folder, rows, **more):
    return {**{name: write_jsonl(folder / f"{name}.jsonl", rows) for name in ("train", "validation")}, **more}


@pytest.mark.parametrize("kind", ["bart", "gpt2"])
def test_summaries_are_learnt_chosen_judged_and_predicted(tmp_path, model, kind):
    generation = {"num_beams": 2, "max_length": 6, "min_length": 1}
    options = files(tmp_path, XSUM, dev_cap=4, generation=generation, max_source_length=30)
    recipe = Recipe(
        task="xsum",
        model=model(kind),
        method="lora(rank=2)",
        options=options,
        training={**TRAINING, **BEST, "label_smoothing_factor": 0.1, "lr_scheduler_type": "polynomial"},
    )
    folder = tmp_path / "run"
    result = run(recipe, 0, folder)
    assert result.metric == "rouge2"
    assert {"rouge1", "rouge2", "rougeL", "rougeLsum", "loss"} == set(result.metrics)
    assert any("eval_rouge2" in row for row in read_lines(folder / "log.jsonl")), "checkpoints are compared by ROUGE-2"
    rows = read_lines(folder / "predictions.jsonl")
    assert len(rows) == 9
    assert result.score == pytest.approx(sum(row["rouge2"] for row in rows) / 9)
    assert evaluate(folder) == pytest.approx(result.metrics)
    first = predict(folder, [rows[0]["input"]])[0]
    assert first == {"input": rows[0]["input"], "predicted": rows[0]["predicted"]}


def test_where_the_loss_chooses_nothing_is_written_until_the_end(tmp_path, model, monkeypatch):
    pairs = [{"en": row["document"], "ro": row["summary"]} for row in XSUM]
    options = files(tmp_path, pairs, generation={"num_beams": 1, "max_length": 5}, max_source_length=30)
    recipe = Recipe(
        task="wmt16-en-ro", model=model("bart"), method="lora(rank=2)", options=options, training={**TRAINING, **BEST}
    )
    result = run(recipe, 0, tmp_path / "run")
    logged = [row for row in read_lines(tmp_path / "run" / "log.jsonl") if "eval_loss" in row]
    assert len(logged) == 2
    assert not any("eval_sacrebleu" in row for row in logged)
    assert {"romanian_bleu", "sacrebleu", "loss"} == set(result.metrics)


@pytest.mark.parametrize("kind", ["bert", "bart", "gpt2"])
def test_pairs_are_classified_and_the_mismatched_set_is_scored_too(tmp_path, model, kind):
    options = files(tmp_path, MNLI, also={"mismatched": write_jsonl(tmp_path / "mm.jsonl", MNLI[:4])})
    recipe = Recipe(task="mnli", model=model(kind), method="bitfit", options=options, training={**TRAINING, **BEST})
    result = run(recipe, 0, tmp_path / "run")
    assert {"accuracy", "loss", "accuracy_mismatched", "loss_mismatched"} == set(result.metrics)
    assert predict(tmp_path / "run", ["w1 w2\tw3"])[0]["predicted"] in ("entailment", "neutral", "contradiction")


def test_the_perplexity_is_that_of_all_tokens(tmp_path, model):
    options = files(tmp_path, TEXTS, prompt="about")
    folder = model("gpt2")
    recipe = Recipe(task="causal-lm", model=folder, method="none", options=options, training={"use_cpu": True})
    result = run(recipe, 0, tmp_path / "run")
    prepared = CausalLm(options).prepare(model=folder)
    losses = []
    for row in prepared.evaluation:
        line = torch.tensor([row["input_ids"] + row["labels"]])
        with torch.no_grad():
            scores = prepared.model(line).logits[0].log_softmax(-1)
        losses += [-float(scores[i - 1, line[0, i]]) for i in range(len(row["input_ids"]), line.shape[1])]
    assert result.score == pytest.approx(math.exp(sum(losses) / len(losses)), rel=1e-5)
    assert sum(row["tokens"] for row in read_lines(tmp_path / "run" / "predictions.jsonl")) == len(losses)
    assert result.greater_is_better is False


def test_texts_without_prompts_are_learnt_and_continued(tmp_path, model):
    recipe = Recipe(
        task="causal-lm",
        model=model("gpt2"),
        method="lora(rank=2)",
        options=files(tmp_path, TEXTS),
        training={**TRAINING, **BEST},
    )
    result = run(recipe, 0, tmp_path / "run")
    assert result.metrics["perplexity"] == pytest.approx(math.exp(result.metrics["token_loss"]))
    logged = [row["eval_perplexity"] for row in read_lines(tmp_path / "run" / "log.jsonl") if "eval_perplexity" in row]
    assert result.score == pytest.approx(min(logged)), "less is better"
    assert predict(tmp_path / "run", ["w1"])[0]["predicted"]


def test_what_is_cut_is_told_and_kept(tmp_path, model):
    recipe = Recipe(
        task="xsum",
        model=model("bart"),
        method="none",
        options=files(
            tmp_path, XSUM, max_source_length=5, generation={"num_beams": 1, "min_length": 1, "max_length": 4}
        ),
        training={"use_cpu": True},
    )
    told = []
    run(recipe, 0, tmp_path / "run", progress=lambda progress: told.append(progress.note))
    note = "9 of 9 evaluation inputs are longer than 5 tokens and were cut."
    assert note in told
    kept = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert note in kept["notes"]
    assert kept["metrics"]["rouge"].startswith("rouge-score:")
    assert {"rouge-score", "sacrebleu"} <= set(kept["packages"])


def test_wrong_options_leave_nothing_behind(tmp_path):
    for task, options, message in [
        ("sst2", {"trian": "a"}, "Did you mean 'train'"),
        ("sentiment", {"train": "a"}, "task 'sentiment' has no option 'train'"),
    ]:
        with pytest.raises(TaskError, match=message):
            run(Recipe(task=task, method="lora", options=options), 0, tmp_path / "run")
        assert not (tmp_path / "run").exists()


def test_options_are_part_of_what_identifies_a_run(tmp_path):
    plain = Recipe(task="xsum", method="lora")
    assert plain.hash() == Recipe(task="xsum", method="lora", options={}).hash()
    assert plain.hash() != Recipe(task="xsum", method="lora", options={"dev_cap": 1600}).hash()
    part = {"options": {"dev_cap": 1600}}
    cells = ComparePlan(tasks={"xsum": part, "sst2": {}}, methods=["lora"]).cells()
    assert [cell.recipe.options for cell in cells] == [{"dev_cap": 1600}, {}]


def test_options_are_checked_where_a_file_says_them(tmp_path):
    recipe, plan = tmp_path / "recipe.yaml", tmp_path / "plan.yaml"
    recipe.write_text("task: sst2\nmethod: lora\noptions:\n  train: a.csv\n  max_lenght: 9\n")
    with pytest.raises(RecipeError, match=r"recipe\.yaml:5: .*no option 'max_lenght'\. Did you mean 'max_length'"):
        load_recipe(recipe)
    plan.write_text("methods: [lora]\ntasks:\n  xsum:\n    options: {metric: rouge9}\n")
    with pytest.raises(RecipeError, match=r"plan\.yaml:4: .*unknown metric 'rouge9'"):
        load_plan(plan)
    recipe.write_text("task: theirs\nmethod: lora\noptions: {anything: 1}\n")
    assert load_recipe(recipe, tasks=["theirs"]).options == {"anything": 1}


def test_a_budget_of_tokens_is_checked_like_any_argument(tmp_path, model):
    with pytest.raises(ValueError, match="max_tokens_per_batch"):
        Recipe(task="xsum", method="lora", training={"max_tokens_per_batch": 0})
    options = files(tmp_path, XSUM, max_source_length=30)
    training = {**TRAINING, "max_tokens_per_batch": 4}
    recipe = Recipe(task="xsum", model=model("bart"), method="lora(rank=2)", options=options, training=training)
    with pytest.raises(RunError, match="the longest example alone has 8 tokens"):
        run(recipe, 0, tmp_path / "run")


def test_the_papers_dev_criteria():
    assert (XSum().metric, XSum().selection) == ("rouge2", None)


def test_labels_that_only_the_training_file_names_are_those_of_predictions(tmp_path, model):
    rows = [{"text": words(number), "label": ("bad", "good", "so-so")[number % 3]} for number in range(9)]
    recipe = Recipe(
        task="csv-classification",
        model=model("bert"),
        method="bitfit",
        options=files(tmp_path, rows),
        training={**TRAINING},
    )
    run(recipe, 0, tmp_path / "run")
    kept = read_lines(tmp_path / "run" / "predictions.jsonl")
    found = predict(tmp_path / "run", [row["input"] for row in kept])
    assert [row["predicted"] for row in found] == [row["predicted"] for row in kept]
