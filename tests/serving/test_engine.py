"""What a batch computes is what each row computes alone, with its own run loaded by itself."""

from __future__ import annotations

import dataclasses
import itertools
import math
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModel

import unipetl
from serving.tiny_runs import TWO, engine_of, labelled, make_run, varied
from tasks.tiny_text import SAVE, save_bert, words, write_jsonl
from unipetl.errors import ServingError
from unipetl.experiment import predict
from unipetl.serving import Engine, Limits, Source
from unipetl.serving.engine import Work
from unipetl.serving.reader import reader_of
from unipetl.serving.source import load_base
from unipetl.serving.writing import Asked, settings_for
from unipetl.tasks import CsvClassification

TEXTS = ["w1 w2 w3", "w4", "w5 w6 w7 w8 w9 w10", "good film w3"]


def compute(engine, action, pairs, asked=None, **more):
    """The answers to (served, text) pairs, as one batch."""
    items = []
    for served, text in pairs:
        (row,) = engine.read(served, [text])
        settings = {}
        if action == "generate":
            settings = settings_for(served.reader, asked or Asked({}), len(row["input_ids"]), Limits())
        items.append(SimpleNamespace(work=Work(action, served, row, settings=settings, **more), wanted=True))
    return engine.compute(items)


def by_lane(served):
    return [list(group) for _, group in itertools.groupby(sorted(served, key=lambda s: id(s.lane)), lambda s: s.lane)]


def test_mixed_classification_is_what_predict_says(many, classifiers):
    engine, served = many
    assert sorted(map(len, by_lane(served))) == [2, 5], "a lane for each set of labels"
    for lane in by_lane(served):
        pairs = [(one, text) for text in TEXTS for one in lane]
        answers = compute(engine, "classify", pairs)
        for one in lane:
            mine = [answer for (owner, _), answer in zip(pairs, answers, strict=True) if owner is one]
            alone = predict(classifiers[one.name], TEXTS)
            assert [answer["label"] for answer in mine] == [row["predicted"] for row in alone]
            assert [answer["probability"] for answer in mine] == pytest.approx(
                [row["probability"] for row in alone], abs=2e-5
            )
            assert all(math.isclose(sum(answer["probabilities"].values()), 1, abs_tol=1e-5) for answer in mine)


def test_attachments_differ_so_that_a_mix_up_would_show(many):
    engine, served = many
    lane = max(by_lane(served), key=len)
    found = [compute(engine, "classify", [(one, TEXTS[0])])[0]["probability"] for one in lane]
    assert len({round(probability, 4) for probability in found}) == len(lane)


@pytest.mark.parametrize("which", ["writers", "causal"])
def test_mixed_writing_is_what_predict_says(request, which):
    paths = request.getfixturevalue(which)
    engine, served = engine_of(paths)
    pairs = [(one, text) for text in TEXTS[:3] for one in served]
    answers = compute(engine, "generate", pairs)
    for one in served:
        mine = [answer["text"] for (owner, _), answer in zip(pairs, answers, strict=True) if owner is one]
        assert mine == [row["predicted"] for row in predict(paths[one.name], TEXTS[:3])]
    assert len({answer["text"] for answer in answers}) > 3


@pytest.mark.parametrize("beams", [1, 2])
def test_writing_stops_once_nobody_waits(writing, beams):
    _, served = writing
    reader, lane = served[0].reader, served[0].lane
    settings = {**reader.generation, "num_beams": beams, "min_length": 9, "max_new_tokens": 9}
    asked = []

    def wanted():
        asked.append(1)
        return len(asked) < 3

    lane.generate([reader.encode(TEXTS[0])], [served[0].key], settings, wanted=wanted)
    assert len(asked) == 3


def test_embeddings_are_pooled_hidden_states(many, writing):
    for engine, served in (many, writing):
        lane = max(by_lane(served), key=len)
        bare = engine.bare("embed")
        pairs = [(one, text) for text in TEXTS for one in (*lane, bare) if one.lane is lane[0].lane]
        for pooling in ("mean", "last"):
            together = compute(engine, "embed", pairs, pooling=pooling)
            alone = [compute(engine, "embed", [pair], pooling=pooling)[0] for pair in pairs]
            torch.testing.assert_close(torch.tensor(together), torch.tensor(alone), atol=2e-5, rtol=1e-4)
    engine, served = many
    one = next(one for one in served if one.name == "lora")
    model = one.lane.model
    unipetl.activate(model, one.key)
    ids = torch.tensor([one.reader.encode(TEXTS[0])["input_ids"]])
    with torch.no_grad():
        hidden = model(ids, output_hidden_states=True).hidden_states[-1][0]
    unipetl.activate(model, None)
    mean, last = (compute(engine, "embed", [(one, TEXTS[0])], pooling=how)[0] for how in ("mean", "last"))
    torch.testing.assert_close(torch.tensor(mean), hidden.mean(0), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(torch.tensor(last), hidden[-1], atol=1e-5, rtol=1e-4)
    (short,) = compute(engine, "embed", [(one, TEXTS[0])], normalize=True)
    assert math.isclose(sum(value**2 for value in short), 1, rel_tol=1e-5)


def test_the_base_is_in_memory_once(many):
    engine, _ = many
    first, second = (lane.model for lane in engine.lanes)
    assert first.classifier.weight.shape != second.classifier.weight.shape
    theirs = dict(second.bert.named_parameters())
    own = {name for name, one in first.bert.named_parameters() if "unipetl" not in name and one is not theirs[name]}
    assert own == set()


def test_seeds_share_a_lane_where_the_head_is_trained(tmp_path):
    base = save_bert(tmp_path / "base")
    rows = labelled(TWO)
    paths = {
        f"s{n}": make_run(tmp_path / f"s{n}", "csv-classification", base, "lora", rows=rows, seed=n) for n in (0, 1)
    }
    engine, _ = engine_of(paths)
    assert len(engine.lanes) == 1


def test_another_base_is_refused_and_changes_nothing(tmp_path, classifiers):
    other = save_bert(tmp_path / "other", hidden_act="relu", num_hidden_layers=2)
    run = make_run(tmp_path / "run", "csv-classification", other, "lora(rank=2)", rows=labelled(TWO))
    changed = SAVE["bert"](tmp_path / "changed")
    model, _ = load_base(changed, "BertModel")
    with torch.no_grad():
        next(model.parameters()).mul_(1.5)
    model.save_pretrained(changed)
    same_shapes = make_run(tmp_path / "same", "csv-classification", changed, "lora(rank=2)", rows=labelled(TWO))
    engine, served = engine_of({"lora": classifiers["lora"]})
    before = compute(engine, "classify", [(served[0], TEXTS[0])])
    for path in (run, same_shapes):
        with pytest.raises(ServingError, match=r"another base"):
            engine.load(Source("other", path))
        assert len(engine.lanes) == 1
        assert [one.name for one in unipetl.attachments(engine.lanes[0].model)] == [served[0].key]
    assert compute(engine, "classify", [(served[0], TEXTS[0])]) == before


def test_untrained_runs_are_the_bare_model_of_their_own_base(tmp_path, classifiers):
    base, changed = classifiers["lora"].parent / "base", varied(SAVE["bert"](tmp_path / "changed"), AutoModel, seed=1)
    rows = labelled(TWO)
    paths = {
        name: make_run(tmp_path / name, "csv-classification", model, "none", rows=rows, seed=seed)
        for name, model, seed in (("zero", base, 0), ("again", base, 0), ("seed", base, 1), ("other", changed, 0))
    }
    other = paths.pop("other")
    engine, served = engine_of(paths)
    assert [engine.lanes.index(one.lane) for one in served] == [0, 0, 1], "heads of other seeds are other heads"
    for one in served:
        (answer,) = compute(engine, "classify", [(one, TEXTS[0])])
        (alone,) = predict(paths[one.name], TEXTS[:1])
        assert answer["probability"] == pytest.approx(alone["probability"], abs=2e-5)
    with pytest.raises(ServingError, match="another base"):
        engine.load(Source("other", other))


def test_single_texts_and_pairs_share_a_batch(tmp_path, classifiers):
    rows = [{**row, "other": words(3, number)} for number, row in enumerate(labelled(TWO))]
    base = classifiers["lora"].parent / "base"
    options = {"text_pair": "other"}
    pairs = make_run(tmp_path / "pairs", "csv-classification", base, "lora(rank=2)", rows=rows, options=options)
    engine, (single, double) = engine_of({"lora": classifiers["lora"], "pairs": pairs})
    assert len(engine.lanes) == 1
    asked = [(single, "w1 w2 w3 w4 w5 w6"), (double, "w1 w2\tw3"), (single, "w4")]
    answers = compute(engine, "classify", asked)
    for (one, text), answer in zip(asked, answers, strict=True):
        (alone,) = predict(pairs if one is double else classifiers["lora"], [text])
        assert answer["probability"] == pytest.approx(alone["probability"], abs=2e-5)


def test_saved_attachments_need_a_base_and_find_their_labels(tmp_path, classifiers):
    adapters = {name: classifiers[name] / "adapter" for name in ("lora", "colour")}
    with pytest.raises(ServingError, match=r"name the base with --model"):
        engine_of(adapters)
    base = classifiers["lora"].parent / "base"
    engine, served = engine_of(adapters, base=str(base))
    assert [len(one.reader.labels) for one in served] == [2, 3]
    found = compute(engine, "classify", [(served[1], TEXTS[0])])[0]
    (alone,) = predict(classifiers["colour"], TEXTS[:1])
    assert found["probability"] == pytest.approx(alone["probability"], abs=2e-5)
    assert found["label"] == "LABEL_" + str(sorted(("red", "green", "blue")).index(alone["predicted"]))


def test_a_base_alone_embeds(tmp_path):
    engine, served = engine_of({}, base=save_bert(tmp_path / "base"))
    assert served == []
    assert engine.bare("classify") is None
    assert len(compute(engine, "embed", [(engine.bare("embed"), words(1, 2))])[0]) == 16


def test_removed_attachments_leave_the_others_as_they_were(classifiers):
    engine, (lora, bitfit) = engine_of({name: classifiers[name] for name in ("lora", "bitfit")})
    before = compute(engine, "classify", [(lora, text) for text in TEXTS])
    engine.remove(bitfit)
    assert compute(engine, "classify", [(lora, text) for text in TEXTS]) == before
    assert [one.name for one in unipetl.attachments(lora.lane.model)] == [lora.key]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda batch: {**batch, "lengths": torch.tensor([1, 2])}, "lengths"),
        (lambda batch: {**batch, "input_ids": batch["input_ids"] + 1}, "input_ids"),
        (lambda batch: {"input_ids": batch["input_ids"]}, "attention_mask"),
    ],
)
def test_batches_that_are_more_than_rows_filled_up_are_refused(tmp_path, change, field):
    options = dict.fromkeys(("train", "validation"), write_jsonl(tmp_path / "rows.jsonl", labelled(TWO)))
    prepared = CsvClassification(options).prepare(model=save_bert(tmp_path / "base"))
    assert reader_of(prepared, "it").labels == ("bad", "good")
    spoilt = dataclasses.replace(prepared, collator=lambda rows: change(prepared.collator(rows)))
    with pytest.raises(ServingError, match=f"it: .*field '{field}'"):
        reader_of(spoilt, "it")


def test_sources_have_names(tmp_path):
    assert Source.parse("a=b/c").name == "a"
    assert Source.parse("b/c").name == "c"
    assert Source.parse("runs/first/seed-0").name == "first-seed-0"
    assert Source.parse("./a=b").name == "a=b"
    with pytest.raises(ServingError, match="printable"):
        Engine().open(Source("a/b", tmp_path))
