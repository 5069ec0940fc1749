"""Summaries and translations, by an encoder-decoder and by a model without encoder that reads a prompt."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import EvalPrediction

from tasks.tiny_text import WORDS, save_bart, tokenizer, words, write_jsonl
from unipetl.errors import TaskError
from unipetl.metrics.rouge import NAMES
from unipetl.tasks import Seq2Seq, Wmt16EnRo, XSum
from unipetl.tasks.prompted import PromptCollator, taken_apart
from unipetl.tasks.spelling import PromptSpeller

XSUM = [{"document": words(*range(number, number + 6)), "summary": words(number, 7)} for number in range(9)]
PAIRS = [{"en": words(*range(number + 1)), "ro": words(number)} for number in range(9)]


def files(folder, rows):
    return {name: write_jsonl(folder / f"{name}.jsonl", rows) for name in ("train", "validation")}


@pytest.fixture
def xsum(tmp_path):
    return files(tmp_path, XSUM)


def padded(rows):
    longest = max(map(len, rows))
    return np.array([[*row, *[-100] * (longest - len(row))] for row in rows])


@pytest.mark.parametrize("model", ["bart", "gpt2"])
def test_right_answers_score_a_hundred(folders, xsum, model):
    prepared = XSum({**xsum, "dev_cap": 3}).prepare(model=folders[model])
    assert (len(prepared.train), len(prepared.development), len(prepared.evaluation)) == (9, 3, 9)
    gold = padded(prepared.evaluation["labels"])
    right = EvalPrediction(gold, gold)
    assert prepared.compute_metrics(right) == pytest.approx(dict.fromkeys(NAMES, 100))
    described = prepared.describe_predictions(right)
    assert all(row["correct"] and row["rouge2"] == 100 for row in described)
    assert {row["gold"] for row in described} == {row["summary"] for row in XSUM}
    assert {row["input"] for row in described} == {row["document"] for row in XSUM}
    with pytest.raises(TaskError, match="not of its evaluation data"):
        prepared.describe_predictions(EvalPrediction(gold, gold[::-1]))
    with pytest.raises(TaskError, match="predict_with_generate=True"):
        prepared.compute_metrics(EvalPrediction(np.zeros((9, 3, 4)), gold))


def test_translations_are_scored_both_ways(folders, tmp_path):
    prepared = Wmt16EnRo(files(tmp_path, PAIRS)).prepare(model=folders["bart"])
    gold = padded(prepared.evaluation["labels"])
    assert set(prepared.compute_metrics(EvalPrediction(gold, gold))) == {"romanian_bleu", "sacrebleu"}
    assert Wmt16EnRo().metric == "romanian_bleu"
    assert Wmt16EnRo({"metric": "sacrebleu"}).metric == "sacrebleu"
    assert Wmt16EnRo().selection == "loss"


def test_translations_may_lie_in_the_hubs_column(folders, tmp_path):
    inner = files(tmp_path, [{"translation": row} for row in PAIRS])
    (tmp_path / "flat").mkdir()
    flat = files(tmp_path / "flat", PAIRS)
    one, two = (Wmt16EnRo(given).prepare(model=folders["bart"]).train.to_dict() for given in (inner, flat))
    assert one == two


def test_the_papers_settings_are_the_defaults(folders, xsum):
    prepared = XSum(xsum).prepare(model=folders["bart"])
    wanted = {"num_beams": 6, "min_length": 10, "max_length": 60, "no_repeat_ngram_size": 3, "length_penalty": 1.0}
    assert prepared.generation == {"do_sample": False, **wanted}
    assert (XSum.max_source_length, XSum.max_target_length, XSum.max_reference_length) == (512, 128, 60)
    assert (Wmt16EnRo.max_source_length, Wmt16EnRo.max_target_length) == (150, 150)
    assert dict(Wmt16EnRo.beams) == {"num_beams": 5, "min_length": 1, "max_length": 200, "no_repeat_ngram_size": 0}


def test_a_model_without_encoder_counts_new_tokens(folders, xsum):
    changed = XSum({**xsum, "generation": {"num_beams": 2, "max_length": 12}, "max_target_length": 20})
    generation = changed.prepare(model=folders["gpt2"]).generation
    assert (generation["max_new_tokens"], generation["min_new_tokens"], generation["num_beams"]) == (12, 10, 2)
    assert "max_length" not in generation
    short = XSum({**xsum, "max_target_length": 8}).prepare(model=folders["gpt2"])
    assert (short.generation["max_new_tokens"], short.generation["min_new_tokens"]) == (8, 8)
    assert "max_length of what is written is 60, and the model has room for 8 tokens." in short.notes


def test_the_loss_is_the_targets_alone(folders, xsum):
    prepared = XSum(xsum).prepare(model=folders["gpt2"])
    rows = [prepared.train[0], prepared.train[1]]
    batch = prepared.collator(rows)
    for row, ids, labels in zip(rows, batch["input_ids"], batch["labels"], strict=True):
        learnt = labels != -100
        assert labels[learnt].tolist() == row["labels"]
        assert ids[learnt].tolist() == row["labels"]
        assert row["labels"][-1] == 2, "a target has its end"
    with torch.no_grad():
        before = prepared.model(**batch).loss
        other = {**batch, "labels": torch.where(batch["labels"] == -100, -100, batch["labels"])}
        assert torch.equal(prepared.model(**other).loss, before)


def test_a_batch_is_taken_apart_into_what_it_was_made_of():
    rows = [{"input_ids": [5, 6, 7], "labels": [8, 2]}, {"input_ids": [9], "labels": [3, 4, 2]}]
    prompts, targets = taken_apart(PromptCollator(0)(rows))
    assert prompts == [[5, 6, 7], [9]]
    assert targets.tolist() == [[8, 2, -100], [3, 4, 2]]


def test_padding_that_is_a_word_of_the_prompt_is_kept():
    prompts, targets = taken_apart(PromptCollator(2)([{"input_ids": [2, 5, 2], "labels": [2]}]))
    assert prompts == [[2, 5, 2]]
    assert targets.tolist() == [[2]]


def test_prompts_are_padded_on_the_left_to_generate():
    batch = PromptCollator(0)([{"input_ids": [5, 6, 7]}, {"input_ids": [9]}])
    assert batch["input_ids"].tolist() == [[5, 6, 7], [0, 0, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]
    assert "labels" not in batch


def test_a_prompt_is_cut_inside():
    speller = PromptSpeller(tokenizer(ends=False), "English : {source} Romanian :", "mine")
    ids, cut = speller.sources([words(1, 2, 3, 4), words(1)], 6)
    names = [*["<pad>", "<s>", "</s>", "<unk>"], *WORDS]
    assert [[names[number] for number in row] for row in ids] == [
        ["English", ":", "w1", "w2", "Romanian", ":"],
        ["English", ":", "w1", "Romanian", ":"],
    ]
    assert cut == 1
    with pytest.raises(TaskError, match="the prompt alone has 4 tokens, and 4 are allowed"):
        speller.sources(["w1"], 4)
    with pytest.raises(TaskError, match=r"needs \{source\} once"):
        PromptSpeller(tokenizer(ends=False), "no place", "mine")


def test_a_prefix_stands_in_front_of_what_the_encoder_reads(folders, xsum):
    plain, prefixed = (XSum({**xsum, **more}).prepare(model=folders["bart"]) for more in ({}, {"prefix": "English : "}))
    assert len(prefixed.train["input_ids"][0]) == len(plain.train["input_ids"][0]) + 2


def test_what_does_not_fit_is_cut_and_counted(folders, tmp_path):
    rows = [{"document": words(*range(40), *range(40)), "summary": words(*range(30))}, *XSUM]
    given = {**files(tmp_path, rows), "max_source_length": 20, "max_target_length": 10, "max_reference_length": 12}
    prepared = XSum(given).prepare(model=folders["bart"])
    assert prepared.notes[:4] == (
        "1 of 10 training inputs are longer than 20 tokens and were cut.",
        "1 of 10 training targets are longer than 10 tokens and were cut.",
        "1 of 10 evaluation inputs are longer than 20 tokens and were cut.",
        "1 of 10 evaluation targets are longer than 12 tokens and were cut.",
    )
    assert max(map(len, prepared.train["input_ids"])) == 20
    assert max(map(len, prepared.train["labels"])) == 10
    assert max(map(len, prepared.evaluation["labels"])) == 12
    with pytest.raises(TaskError, match="leave no room for a prompt in this model's 256"):
        XSum({**given, "max_target_length": 256}).prepare(model=folders["gpt2"])


def test_an_encoder_cannot_write(folders, xsum):
    with pytest.raises(TaskError, match=r"needs an encoder-decoder such as BART or a decoder, and .* is 'bert'"):
        XSum(xsum).prepare(model=folders["bert"])


def test_a_vocabulary_that_does_not_match_is_refused(xsum, tmp_path):
    with pytest.raises(TaskError, match="embeddings for ids below 12"):
        XSum(xsum).prepare(model=save_bart(tmp_path / "small", vocab_size=12))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "bleu"}, r"unknown metric 'bleu'\. Did you mean 'sacrebleu'"),
        ({"generation": {"num_beans": 3}}, r"no setting 'num_beans'\. Did you mean 'num_beams'"),
        ({"generation": {"num_beams": "many"}}, "num_beams should be a whole number from 0; found 'many'"),
        ({"generation": {"length_penalty": True}}, "length_penalty should be a number; found True"),
        ({"generation": {"min_length": 9, "max_length": 8}}, "min_length is 9, above max_length, 8"),
        ({"generation": {"num_beams": 2, "num_return_sequences": 3}}, "transformers refuses these settings"),
        ({"prompt": "nothing"}, "it needs {source} once"),
        ({"source": "documnt"}, r"no column 'documnt'\. Did you mean 'document'"),
    ],
)
def test_wrong_options_are_named(folders, xsum, options, message):
    columns = {"source": "document", "target": "summary"}
    with pytest.raises(TaskError, match=message):
        Seq2Seq({**xsum, **columns, **options}).prepare(model=folders["gpt2"])


def test_ones_own_pairs_are_judged_as_one_likes(folders, xsum):
    task = Seq2Seq({**xsum, "source": "document", "target": "summary", "metric": "exact_match"})
    prepared = task.prepare(model=folders["bart"])
    gold = padded(prepared.evaluation["labels"])
    wrong = gold.copy()
    wrong[0, 1] = 30
    assert prepared.compute_metrics(EvalPrediction(wrong, gold)) == {"exact_match": pytest.approx(100 * 8 / 9)}
