"""Classification of a user's and of the paper's texts, on tiny models of every kind."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import EvalPrediction

from tasks.tiny_text import save_bert, words, write_jsonl
from unipetl.errors import TaskError
from unipetl.tasks import CsvClassification, Mnli, Sst2

SST2 = [{"sentence": f"w{number} {'good' if number % 2 else 'bad'} film", "label": number % 2} for number in range(12)]
NAMES = ("entailment", "neutral", "contradiction")
MNLI = [{"premise": words(number, 2), "hypothesis": words(3), "label": NAMES[number % 3]} for number in range(12)]


@pytest.fixture
def sst2(tmp_path):
    return {
        "train": write_jsonl(tmp_path / "train.jsonl", SST2),
        "validation": write_jsonl(tmp_path / "dev.jsonl", SST2),
    }


@pytest.fixture
def mnli(tmp_path):
    hard = write_jsonl(tmp_path / "mm.jsonl", MNLI[:5])
    files = {name: write_jsonl(tmp_path / f"{name}.jsonl", MNLI) for name in ("train", "validation")}
    return {**files, "also": {"mismatched": hard}}


def logits(prepared, data=None):
    rows = prepared.evaluation if data is None else data
    batch = prepared.collator([rows[number] for number in range(len(rows))])
    with torch.no_grad():
        return prepared.model(**batch).logits.numpy(), np.asarray(rows["labels"])


@pytest.mark.parametrize("model", ["bert", "bart", "gpt2"])
def test_every_kind_of_model_classifies(folders, sst2, model):
    prepared = Sst2(sst2).prepare(model=folders[model], limit=4)
    assert (len(prepared.train), len(prepared.evaluation)) == (4, 12)
    found, gold = logits(prepared)
    assert found.shape == (12, 2)
    metrics = prepared.compute_metrics(EvalPrediction(found, gold))
    described = prepared.describe_predictions(EvalPrediction(found, gold))
    assert metrics["accuracy"] == pytest.approx(100 * np.mean([row["correct"] for row in described]))
    assert described[0]["gold"] in ("negative", "positive")
    assert prepared.model.config.id2label == {0: "negative", 1: "positive"}


@pytest.mark.parametrize("model", ["bert", "bart", "gpt2"])
def test_padding_does_not_change_what_is_predicted(folders, sst2, model):
    prepared = Sst2(sst2).prepare(model=folders[model])
    short, long = prepared.row("w1 good"), prepared.row(words(*range(30)))
    with torch.no_grad():
        alone = prepared.model(**prepared.collator([short])).logits[0]
        beside = prepared.model(**prepared.collator([short, long])).logits[0]
    torch.testing.assert_close(alone, beside)


def test_the_head_is_drawn_from_the_seed(folders, sst2):
    one, same, other = (Sst2(sst2).prepare(model=folders["bert"], seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.model.classifier.weight, same.model.classifier.weight)
    assert not torch.equal(one.model.classifier.weight, other.model.classifier.weight)


def test_pairs_are_read_as_pairs_and_the_mismatched_set_is_scored(folders, mnli):
    prepared = Mnli({**mnli, "dev_cap": 4}).prepare(model=folders["bert"])
    assert prepared.train.column_names == ["input_ids", "token_type_ids", "labels"]
    assert set(prepared.train[0]["token_type_ids"]) == {0, 1}
    assert len(prepared.development) == 4
    assert {name: len(data) for name, data in prepared.also.items()} == {"mismatched": 5}
    assert prepared.row(f"{words(0, 2)}\tw3")["input_ids"] == prepared.train[0]["input_ids"]
    assert prepared.row(f"{words(0, 2)}\tw3")["token_type_ids"] == prepared.train[0]["token_type_ids"]
    with pytest.raises(TaskError, match="put a tab between the two"):
        prepared.row("w1 w2")
    described = prepared.describe_predictions(EvalPrediction(*logits(prepared)))
    assert described[0]["input"].count("\t") == 1


def test_labels_and_columns_of_ones_own(folders, tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("review;stars\n", encoding="utf-8")
    rows = "".join(f"w{number} film,{('great', 'fine', 'poor')[number % 3]}\n" for number in range(30))
    path.write_text("review,stars\n" + rows, encoding="utf-8")
    task = CsvClassification({"train": str(path), "text": "review", "label": "stars"})
    prepared = task.prepare(model=folders["bert"])
    assert list(prepared.model.config.id2label.values()) == ["fine", "great", "poor"]
    assert (len(prepared.train), len(prepared.evaluation)) == (27, 3)
    assert "kept back" in prepared.notes[0]
    only = CsvClassification({"train": str(path), "text": "review", "label": "stars", "labels": ["great", "fine"]})
    with pytest.raises(TaskError, match=r"mine\.csv, line \d+: the label 'poor' is none of 'great', 'fine'"):
        only.prepare(model=folders["bert"])


def test_long_inputs_are_cut_and_counted(folders, sst2, tmp_path):
    sst2["validation"] = write_jsonl(tmp_path / "l.jsonl", [{"sentence": words(*range(40)), "label": 0}, *SST2[:2]])
    prepared = Sst2({**sst2, "max_length": 10}).prepare(model=folders["bert"])
    assert prepared.notes[1] == "1 of 3 evaluation inputs are longer than 10 tokens and were cut."
    assert max(map(len, prepared.evaluation["input_ids"])) == 10
    assert prepared.evaluation["input_ids"][-1][-1] == 2, "the end is kept"
    too_long = Sst2({**sst2, "max_length": 500}).prepare(model=folders["bert"])
    assert "max_length is 500, and the model reads 64 tokens: that is the limit." in too_long.notes


def test_words_that_the_tokenizer_does_not_know_are_counted(folders, sst2):
    notes = Sst2(sst2).prepare(model=folders["bert"]).notes
    assert any("12 of 60 tokens (20 %) are unknown to the tokenizer" in note for note in notes)


def test_a_tokenizer_of_another_model_is_refused(sst2, tmp_path):
    with pytest.raises(TaskError, match=r"gives the id \d+ \(.*\), and the model has embeddings for ids below 20"):
        Sst2(sst2).prepare(model=save_bert(tmp_path / "small", vocab_size=20))


def test_faults_of_the_files_come_before_the_model(sst2, tmp_path):
    sst2["train"] = write_jsonl(tmp_path / "t.jsonl", [{"sentnce": "a", "label": 1}])
    with pytest.raises(TaskError, match=r"no column 'sentence'\. Did you mean 'sentnce'"):
        Sst2(sst2).prepare(model="there is none")


def test_models_that_cannot_be_had_are_named(sst2, tmp_path):
    with pytest.raises(TaskError, match=r"task 'sst2': cannot load a classifier from '.*nowhere'"):
        Sst2(sst2).prepare(model=str(tmp_path / "nowhere"))
    with pytest.raises(TaskError, match="task 'csv-classification' has no model of its own"):
        CsvClassification({"train": "x.csv"}).prepare()


def test_predictions_in_another_order_are_refused(folders, sst2):
    prepared = Sst2(sst2).prepare(model=folders["bert"])
    found, gold = logits(prepared)
    with pytest.raises(TaskError, match="not of its evaluation data"):
        prepared.describe_predictions(EvalPrediction(found, 1 - gold))


def test_a_configured_task_is_another_object(sst2):
    task = Sst2()
    assert task.configure({}) is task
    assert task.configure(sst2).options.train == sst2["train"]
    assert task.options.train is None
