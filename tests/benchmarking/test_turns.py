"""Workers take turns, a failing one ends nothing, and each plan names what exists."""

from __future__ import annotations

import io
import json
from types import MappingProxyType
from typing import Any

from benchmarks.kinds import HOMES
from benchmarks.libraries import NAMES
from benchmarks.measure import measure, run
from benchmarks.methods import TITLES, ranked, title
from benchmarks.plan import PARTS, Step, plan
from benchmarks.shapes import SHAPES
from benchmarks.worker import Worker, serve

STEP = Step("eval", "eval", "roberta", ("lora_qv",))


class Member:
    """Answers like a worker, and notes when it was asked."""

    def __init__(self, library: str, asked: list[str], fails: str = "") -> None:
        self.library, self.asked, self.fails = library, asked, fails
        self.python = "python"

    def ask(self, do: str, **more: Any) -> dict[str, Any]:
        self.asked.append(f"{self.library} {do} {more.get('number', '')}".strip())
        if do == self.fails:
            return {"error": "ValueError: planted"}
        return {
            "start": {"reference": "bare", "problems": {}, "facts": {}},
            "round": {"timings": [["bare", {"cpu": 1.0}]]},
        }.get(do, {})


def test_workers_take_turns_and_the_first_round_does_not_count():
    asked: list[str] = []
    members: Any = {name: Member(name, asked) for name in ("unipetl", "peft")}
    records = measure(STEP, members, 2, {})
    rounds = [one for one in asked if " round " in one]
    assert rounds == [
        *("unipetl round 0", "peft round 0"),
        *("peft round 1", "unipetl round 1"),
        *("unipetl round 2", "peft round 2"),
    ]
    assert [len(one["rounds"]) for one in records] == [2, 2]


def test_a_library_that_cannot_start_is_recorded_and_the_others_go_on():
    asked: list[str] = []
    members: Any = {"unipetl": Member("unipetl", asked), "peft": Member("peft", asked, fails="start")}
    ours, theirs = measure(STEP, members, 1, {})
    assert (len(ours["rounds"]), theirs["error"], theirs["rounds"]) == (1, "ValueError: planted", [])


def test_records_are_kept_step_by_step(capsys):
    kept: list[Any] = []
    members: Any = {"unipetl": Member("unipetl", [])}
    run([STEP, STEP], members, 1, {"layers": 2}, kept.append)
    assert [one[0]["changes"] for one in kept] == [{"layers": 2}] * 2
    assert capsys.readouterr().err.count("eval roberta") == 2


def test_a_steps_own_sizes_win():
    step = Step("growth", "eval", "roberta", changes={"layers": 4})
    (record,) = measure(step, {"unipetl": Member("unipetl", [])}, 1, {"layers": 2, "rows": 1})  # type: ignore[dict-item]
    assert record["changes"] == {"layers": 4, "rows": 1}


class Library:
    """A library with one method, which adds nothing, and one that fails."""

    PACKAGES = ("torch",)
    METHODS = MappingProxyType({"lora_qv": None, "ia3": None})

    @staticmethod
    def attach(model: Any, method: str) -> Any:
        if method == "ia3":
            raise RuntimeError("planted\nsecond line")
        return model


def test_a_worker_answers_line_by_line():
    sizes = {
        "layers": 1,
        "width": 8,
        "heads": 2,
        "key_heads": 2,
        "hidden": 16,
        "vocabulary": 50,
        "rows": 1,
        "tokens": 4,
    }
    commands = [
        {"do": "hello"},
        {"do": "round", "number": 0},
        {"do": "start", "kind": "eval", "of": "roberta", "changes": sizes, "methods": ["lora_qv", "ia3", "bitfit"]},
        {"do": "round", "number": 1},
        {"do": "end"},
    ]
    answers = io.StringIO()
    library: Any = Library
    serve(Worker(library, "cpu"), [json.dumps(one) for one in commands], answers)
    hello, early, started, timed, ended = (json.loads(one) for one in answers.getvalue().splitlines())
    assert hello["versions"].keys() == {"torch"}
    assert "no kind was started" in early["error"]
    assert started["problems"] == {"ia3": "RuntimeError: planted"}
    assert started["facts"].keys() == {"bare", "lora_qv"}
    assert [name for name, _ in timed["timings"]] == ["bare", "lora_qv", "bare"]
    assert all(seconds["cpu"] >= 0 and seconds["wall"] > 0 for _, seconds in timed["timings"])
    assert ended == {}


def test_plans_name_what_exists():
    for device in ("cpu", "cuda"):
        steps = list(plan(device))
        assert {step.part for step in steps} == set(PARTS)
        for step in steps:
            assert step.kind in {*HOMES, "import"}
            assert step.shape in {*SHAPES, ""}
            assert set(step.methods) <= set(TITLES)
            assert set(step.libraries) <= set(NAMES)


def test_names_are_titled_and_ranked():
    assert title("lora_qv | compiled") == "LoRA r=8, query and value, compiled"
    assert title("floor") == "training floor"
    assert ranked(["ia3", "lora_qv", "bare", "other"]) == ["bare", "lora_qv", "ia3", "other"]
