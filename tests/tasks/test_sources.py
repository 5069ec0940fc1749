"""Which examples are learnt from, chosen by and judged on: from files, and from the hub where it is stood in for."""

from __future__ import annotations

import datasets
import pytest

from tasks.tiny_text import write_jsonl
from unipetl.errors import DownloadError, TaskError
from unipetl.tasks.hub import Hub
from unipetl.tasks.options import PAPER_DEV_CAP, SourceOptions, WritingOptions, read_options
from unipetl.tasks.sources import Source


def file(folder, name, count):
    return write_jsonl(folder / f"{name}.jsonl", [{"text": f"{name} {number}"} for number in range(count)])


def source(judged="validation", hub=None, also=None):
    return Source("mine", hub, judged, also or {})


def texts(rows):
    return None if rows is None else rows.texts("text")


def test_files_are_taken_as_they_are(tmp_path):
    given = {name: file(tmp_path, name, count) for name, count in (("train", 6), ("validation", 4), ("test", 3))}
    splits = source().read(SourceOptions(**given), None, None)
    assert (len(splits.train), splits.development, len(splits.evaluation)) == (6, None, 4)
    judged = source("test").read(SourceOptions(**given), None, None)
    assert (len(judged.development), len(judged.evaluation)) == (4, 3)
    assert texts(judged.evaluation) == ["test 0", "test 1", "test 2"]


def test_the_development_cap_takes_the_first_and_leaves_what_is_judged(tmp_path):
    given = {"train": file(tmp_path, "train", 3), "validation": file(tmp_path, "validation", 9), "dev_cap": 2}
    splits = source().read(SourceOptions(**given), None, None)
    assert texts(splits.development) == ["validation 0", "validation 1"]
    assert len(splits.evaluation) == 9
    same = source().read(SourceOptions(**given, evaluate_on="development"), None, None)
    assert same.development is None
    assert texts(same.evaluation) == ["validation 0", "validation 1"]
    rest = source().read(SourceOptions(**given, evaluate_on="rest"), None, None)
    assert texts(rest.development) == ["validation 0", "validation 1"]
    assert texts(rest.evaluation) == [f"validation {number}" for number in range(2, 9)]
    assert PAPER_DEV_CAP == 1600


def test_limits_choose_the_same_examples_every_time(tmp_path):
    given = {"train": file(tmp_path, "train", 30), "validation": file(tmp_path, "validation", 30)}
    one, two = (source().read(SourceOptions(**given), 5, 4) for _ in range(2))
    assert texts(one.train) == texts(two.train)
    assert (len(one.train), len(one.evaluation)) == (5, 4)
    assert texts(one.train) != [f"train {number}" for number in range(5)]


def test_without_a_validation_file_some_examples_are_kept_back(tmp_path):
    splits = source("test").read(SourceOptions(train=file(tmp_path, "train", 40)), None, None)
    assert (len(splits.train), len(splits.evaluation)) == (36, 4)
    assert not set(texts(splits.train)) & set(texts(splits.evaluation))
    assert "4 of 40 examples are kept back for validation" in splits.notes[0]


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        ((), {}, "needs files: give the option train="),
        (("validation",), {}, "none to train on; give train="),
        (("train",), {}, "5 examples are too few to keep some back"),
        (("train", "validation"), {"evaluate_on": "test"}, "there is no file for it: give test="),
        (("train", "validation"), {"evaluate_on": "rest"}, "of its 5 examples nothing is left: give a smaller dev_cap"),
    ],
)
def test_what_is_missing_is_named(tmp_path, names, options, message):
    given = {name: file(tmp_path, name, 5) for name in names}
    with pytest.raises(TaskError, match=message):
        source().read(SourceOptions(**given, **options), None, None)


@pytest.mark.parametrize(("limit", "evaluation_limit", "name"), [(0, None, "limit"), (None, -1, "evaluation_limit")])
def test_limits_are_positive(limit, evaluation_limit, name):
    with pytest.raises(TaskError, match=f"^{name} must be at least 1"):
        source().read(SourceOptions(), limit, evaluation_limit)


@pytest.fixture
def hub(monkeypatch):
    """A hub with one data set, and the calls that were made of it."""
    calls = []

    def load_dataset(name, config, split, revision):
        calls.append((name, config, split, revision))
        return datasets.Dataset.from_dict({"text": [f"{split} {number}" for number in range(5)], "label": [0] * 5})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return calls


def test_the_hub_is_asked_for_what_is_needed_and_no_more(hub):
    there = Hub("org/data", "part", "v1", splits={"validation": "validation_matched"})
    splits = source(hub=there, also={"mismatched": "validation_mismatched"}).read(SourceOptions(dev_cap=2), 3, None)
    assert hub == [
        ("org/data", "part", "train", "v1"),
        ("org/data", "part", "validation_matched", "v1"),
        ("org/data", "part", "validation_mismatched", "v1"),
    ]
    assert (len(splits.train), len(splits.development), len(splits.evaluation)) == (3, 2, 5)
    assert texts(splits.also["mismatched"]) == [f"validation_mismatched {number}" for number in range(5)]
    assert splits.evaluation.at(2) == "org/data (part), validation_matched, row 3"


def test_files_leave_the_hub_alone(hub, tmp_path):
    there = Hub("org/data")
    given = {"train": file(tmp_path, "train", 2), "validation": file(tmp_path, "validation", 2)}
    more = {"also": {"hard": file(tmp_path, "hard", 3)}}
    splits = source("test", there, {"mismatched": "x"}).read(SourceOptions(**given, **more), None, None)
    assert hub == []
    assert texts(splits.evaluation) == ["validation 0", "validation 1"]
    assert {name: len(rows) for name, rows in splits.also.items()} == {"hard": 3}


def test_a_download_that_breaks_says_what_would_work(monkeypatch):
    def load_dataset(*args, **settings):
        raise ConnectionError("Couldn't reach the hub.\nlong trace")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(
        DownloadError, match=r"cannot get the train split of org/data.*ConnectionError: Couldn't reach"
    ) as e:
        source(hub=Hub("org/data")).read(SourceOptions(), None, None)
    assert "options.train=train.jsonl" in str(e.value)
    assert "long trace" not in str(e.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"trian": "a"}, r"task 'mine' has no option 'trian'\. Did you mean 'train'\? Options: train, validation"),
        ({"dev_cap": 0}, "option 'dev_cap': Input should be greater than or equal to 1"),
        ({"evaluate_on": "dev"}, "option 'evaluate_on'"),
        ({"generation": 3}, "option 'generation'"),
    ],
)
def test_a_wrong_option_is_named(given, message):
    with pytest.raises(TaskError, match=message):
        read_options(WritingOptions, given, "mine")
