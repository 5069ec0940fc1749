"""Intervals of runs and tests between them, from what they kept."""

from __future__ import annotations

import dataclasses

import pytest

from unipetl.errors import RunError
from unipetl.experiment import interval, paired
from unipetl.experiment.directory import RunDirectory, RunResult, write_json, write_lines
from unipetl.metrics.significance import bleu_interval, mean_interval

GOLD = [f"ana are {number} mere coapte azi" for number in range(12)]
WORSE = [text.replace("mere", "pere") if number % 3 else text for number, text in enumerate(GOLD)]


def finished(folder, metric, rows):
    nothing = {"str": "", "dict": {}, "bool": False}
    kinds = {one.name: str(one.type).partition("[")[0] for one in dataclasses.fields(RunResult)}
    empty = {name: nothing.get(kind, 0) for name, kind in kinds.items()}
    write_json(folder / "metrics.json", {**empty, "path": None, "metric": metric, "metrics": {}})
    write_lines(RunDirectory(folder).predictions, rows)
    return folder


def judged(correct, **more):
    return [
        {"input": text, "gold": text, "predicted": text if right else "", "correct": right, **more}
        for text, right in zip(GOLD, correct, strict=False)
    ]


def test_accuracy_is_a_mean_of_right_answers(tmp_path):
    first = finished(tmp_path / "a", "accuracy", judged([True, False, False, True, False, False]))
    second = finished(tmp_path / "b", "accuracy", judged([True, True, True, True, True, False]))
    assert interval(first) == mean_interval([100.0, 0, 0, 100, 0, 0])
    assert paired(first, second).difference == pytest.approx(50.0)
    assert paired(second, first).difference == pytest.approx(-50.0)


def test_a_score_of_each_example_is_taken(tmp_path):
    rows = [{**row, "rouge2": float(place)} for place, row in enumerate(judged([True] * 6))]
    assert interval(finished(tmp_path / "a", "rouge2", rows)) == mean_interval([0.0, 1, 2, 3, 4, 5])


@pytest.mark.parametrize(("metric", "romanian"), [("sacrebleu", False), ("romanian_bleu", True)])
def test_bleu_is_counted_over_the_corpus(tmp_path, metric, romanian):
    rows = [{"input": gold, "gold": gold, "predicted": said} for gold, said in zip(GOLD, WORSE, strict=True)]
    first = finished(tmp_path / "a", metric, rows)
    second = finished(tmp_path / "b", metric, [{**row, "predicted": row["gold"]} for row in rows])
    assert interval(first) == bleu_interval(WORSE, GOLD, romanian=romanian)
    assert paired(first, second).difference > 10


def test_what_cannot_be_compared_is_refused(tmp_path):
    first = finished(tmp_path / "a", "accuracy", judged([True, False]))
    more = finished(tmp_path / "b", "accuracy", judged([True, False, True]))
    with pytest.raises(RunError, match=r"not judged on the same examples \(2 and 3\)"):
        paired(first, more)
    with pytest.raises(RunError, match=r"is judged by accuracy and .* by exact_match"):
        paired(first, finished(tmp_path / "c", "exact_match", judged([True, False])))
    with pytest.raises(RunError, match="is no finished run"):
        interval(tmp_path / "nowhere")
    with pytest.raises(RunError, match="do not say what each example adds to perplexity"):
        interval(finished(tmp_path / "d", "perplexity", judged([True, False])))
    with pytest.raises(RunError, match="perplexity is no mean over examples"):
        interval(finished(tmp_path / "e", "perplexity", judged([True, False], perplexity=3.0)))
