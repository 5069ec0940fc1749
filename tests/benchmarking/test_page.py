"""The page says what the file of results says, and no more."""

from __future__ import annotations

import json
from typing import Any

import pytest

from benchmarks import __main__ as command
from benchmarks import summary, targets
from benchmarks.page import page
from benchmarks.results import Results
from benchmarks.rounds import Spread


def timing(name: str, seconds: float) -> tuple[str, dict[str, float]]:
    return name, {"cpu": seconds, "wall": 99.0}


def record(part: str, library: str, reference: str, rounds: list[Any], **more: Any) -> dict[str, Any]:
    about = {"part": part, "kind": part, "shape": "roberta", "changes": {}, "library": library, "problems": {}}
    return {**about, "reference": reference, "facts": {}, "rounds": rounds, **more}


def results(*records: dict[str, Any], quick: bool = False) -> Results:
    machine = {"processor": "a processor", "threads": 1, "date": "2026-01-02", "commit": "abc"}
    library = {"versions": {"torch": "2"}, "python": "3"}
    names = dict.fromkeys(one["library"] for one in records)
    found = {"environment": machine, "clock": "cpu", "quick": quick, "libraries": dict.fromkeys(names, library)}
    return Results(json.loads(json.dumps(found | {"records": records})))


def trained(library: str, seconds: float, method: str = "lora_qv") -> dict[str, Any]:
    rounds = [
        [timing("floor", 2), timing(method, seconds), timing(f"{method} | optimizer", 0.25), timing("floor", 2)]
    ] * 2
    return record("train", library, "floor", rounds, facts={method: {"trained": 294912}})


def line(text: str, *starts: str) -> str:
    return next(one for one in text.splitlines() if all(part in one for part in starts))


def test_libraries_stand_side_by_side():
    text = page(results(trained("unipetl", 2.1), trained("peft", 2.4)))
    assert "| method | unipetl | PEFT | trained | AdamW's step, ms |" in text
    assert line(text, "| LoRA r=8, query and value |") == (
        "| LoRA r=8, query and value | 1.05 [1.05, 1.05] | 1.20 [1.20, 1.20] | 295 k | 250.0 [250.0, 250.0] |"
    )


def test_a_target_is_reached_or_not_or_not_measured():
    text = page(results(trained("unipetl", 2.2), trained("peft", 2.5)))
    assert line(text, "training floor: LoRA").endswith("| ≤ 1.05 | 1.100 [1.100, 1.100] | **not reached** |")
    assert line(text, "PEFT's: LoRA").endswith("| ≤ 0.9 | 0.880 [0.880, 0.880] | reached |")
    assert line(text, "import beyond").endswith("| ≤ 150 ms |  | not measured |")


def test_a_target_from_below_is_reached_from_above():
    target = targets.Target("x", 0.93, lambda found: 0.94, least=True)
    assert target.reached(results()) is True
    assert targets.Target("x", 0.93, lambda found: 0.92, least=True).reached(results()) is False


def test_tokens_a_second_are_the_inverse_of_seconds():
    rounds = [[timing("bare", 1), timing("prefix_30", 1.25), timing("bare", 1)]]
    found = results(record("generate", "unipetl", "bare", rounds, shape="llama", facts={}))
    assert line(page(found), "tokens/s / bare: decoder").endswith("| 0.800 [0.800, 0.800] | **not reached** |")
    assert "| prefix l=30 | 0.80 [0.80, 0.80] |" in page(found)


def test_bytes_are_shown_in_mebibytes_with_the_ratio_to_full_fine_tuning():
    facts = {
        "full fine-tuning": {"saved": 4 * 2**20, "held": 4 * 2**20, "peak": 2**30, "trained": 1},
        "lora_all": {"saved": 2 * 2**20, "held": 3 * 2**20, "peak": 5 * 2**20, "trained": 1},
    }
    changes = {"dtype": "bfloat16"}
    found = results(record("memory", "unipetl", "full", [], shape="llama-narrow", changes=changes, facts=facts))
    text = page(found)
    assert "| LoRA r=8, every linear | 2.0 (0.50) | 3.0 | 5.0 |" in text
    assert line(text, "bytes saved").endswith("| ≤ 0.65 | 0.500 | reached |")


def compiled(problems: dict[str, str]) -> dict[str, Any]:
    times = {"bare": 4, "bare | compiled": 2, "lora_qv": 6, "lora_qv | compiled": 2}
    if problems:
        del times["lora_qv | compiled"]
    one = [timing(name, seconds) for name, seconds in times.items()]
    return record("compile", "unipetl", "bare", [one], kind="compile-eval", problems=problems)


def test_gains_by_compiling_are_relative_to_the_bare_models():
    found = compiled({})
    assert summary.own_gain(found, "cpu") == Spread(2, 2, 2, 1)
    assert summary.relative_gains(found, "cpu")["lora_qv"] == Spread(1.5, 1.5, 1.5, 1)
    assert targets.whole_graphs(results(found)) == 1.0


def test_a_graph_break_lowers_the_share_and_is_told():
    found = results(compiled({"lora_qv | compiled": "Unsupported: a break"}))
    assert targets.whole_graphs(found) == 0.5
    assert "`Unsupported: a break`" in page(found)


def test_a_library_that_failed_is_told():
    found = results(trained("unipetl", 2.1), record("train", "peft", "floor", [], error="KeyError: x"))
    assert line(page(found), "| PEFT |") == "| PEFT | all | train roberta | `KeyError: x` |"


def test_a_quick_run_gets_no_page_in_the_documentation(tmp_path):
    source = tmp_path / "found.json"
    source.write_text(json.dumps(results(trained("unipetl", 2.1), quick=True).found))
    with pytest.raises(SystemExit, match="quick run"):
        command.write_page(source, command.ROOT / "docs" / "benchmarks.md")
    command.write_page(source, tmp_path / "page.md")
    assert (tmp_path / "page.md").read_text().startswith("# Benchmarks")
    assert json.loads((tmp_path / "page.json").read_text()) == json.loads(source.read_text())


def test_only_a_file_measured_alike_is_added_to(tmp_path):
    source = tmp_path / "found.json"
    found = results(trained("unipetl", 2.1)).found
    source.write_text(json.dumps(found))
    assert command.earlier(source, found) == found["records"]
    with pytest.raises(SystemExit, match="another commit: abc"):
        command.earlier(source, found | {"environment": found["environment"] | {"commit": "other"}})
    with pytest.raises(SystemExit, match="not of a quick run"):
        command.earlier(source, found | {"quick": True})
