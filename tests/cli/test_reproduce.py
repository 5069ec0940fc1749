from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from transformers import T5Config

from cli.calling import call, data, refusal
from tasks.tiny_text import save_bart, words, write_jsonl
from unipetl.cli import reproduce
from unipetl.reproduction import paper
from unipetl.reproduction.running import Reproduced

TINY = ("--set", "training.max_steps=2", "--set", "training.eval_strategy=no", "--set", "training.save_strategy=no",
        "--set", "training.load_best_model_at_end=false", "--set", "training.use_cpu=true",
        "--set", "options.generation={num_beams: 1, max_length: 5, min_length: 1}",
        "--set", "options.max_source_length=30", "--set", "options.max_target_length=30")  # fmt: skip


@pytest.fixture
def xsum(tmp_path):
    """A folder with files for xsum, and one with a tiny BART."""
    folder = tmp_path / "data" / "xsum"
    folder.mkdir(parents=True)
    rows = [{"document": words(*range(n, n + 6)), "summary": words(n, 7)} for n in range(9)]
    for name in ("train", "validation"):
        write_jsonl(folder / f"{name}.jsonl", rows)
    return folder.parent, save_bart(tmp_path / "bart")


def test_a_dry_run_shows_shares_cost_and_sources():
    text = call("reproduce", "table6", "--rows", "mam,lora", "--dry-run").stdout
    assert "table6 on xsum: model facebook/bart-large (hub), data EdinburghNLP/xsum (hub)" in text
    assert "7.2 *" in text
    assert "21.90 ± 0.01" in text
    assert "* table6 lora: printed 7.2 %, by the paper's rule 6.12 %." in text
    assert "12 runs, about" in text


def test_the_same_as_json():
    found = data("reproduce", "table4", "--rows", "pa-ffn-30,mh-pa-30", "--dry-run")
    first, second = found["cells"]
    assert (first["printed_share"], round(first["rule_share"], 2), first["corrected"]) == (0.1, 0.36, True)
    assert round(second["rule_share"], 2) == 0.54
    assert second["recipe"]["training"]["label_smoothing_factor"] == 0.0
    assert len(found["corrections"]) == 2
    assert any("without label smoothing" in note for note in second["notes"])


def test_a_budget_solves_for_the_sizes():
    args = ("reproduce", "table6", "--rows", "mam,bitfit", "--task", "xsum", "--budget", "1%", "--dry-run")
    by_row = {one["row"]: one for one in data(*args)["cells"]}
    assert by_row["mam"]["model_share"] == pytest.approx(1.0, rel=0.05)
    assert by_row["bitfit"]["recipe"]["method"] == "bitfit"


def test_what_the_paper_prints_does_not_stand_beside_another_size():
    args = ("reproduce", "table6", "--rows", "lora,bitfit", "--task", "xsum", "--dry-run")
    (printed, _), (lora, bitfit) = data(*args)["cells"], data(*args, "--budget", "1%")["cells"]
    assert (printed["as_printed"], printed["printed_share"], printed["printed"]["rouge2"]) == (True, 7.2, 21.29)
    assert (lora["as_printed"], lora["printed_share"], lora["printed"], lora["printed_std"]) == (False, None, {}, {})
    # By the rule: a rank adds 12 layers of d + 4 d twice, in encoder and decoder, of 409.6 M.
    (rank,) = re.findall(r"rank=(\d+)", lora["recipe"]["method"])
    assert int(rank) < 102
    assert lora["rule_share"] == pytest.approx(100 * int(rank) * 24 * 2 * 5 * 1024 / 409.6e6)
    assert not lora["corrected"]
    assert bitfit["as_printed"]
    assert bitfit["printed_share"] == 0.1
    text = call(*args, "--budget", "1%").stdout
    assert "7.2" not in text
    assert "21.29" not in text
    assert "whose numbers are left out: lora." in " ".join(text.split())


def test_recipes_are_written(tmp_path):
    found = data("reproduce", "recipes", "-o", tmp_path / "recipes")
    assert len(found["files"]) == len(paper.recipe_files())
    assert "Did you mean" not in call("train", tmp_path / "recipes" / "table2" / "mam.sst2.yaml", "--dry-run").stdout


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (["tabel6"], ["unknown table or figure 'tabel6'", "Did you mean 'table6'"]),
        (["table6", "--rows", "mom"], ["unknown row of table6 'mom'", "Did you mean 'mam'"]),
        (["table6", "--task", "xsun"], ["unknown task of table6 'xsun'", "Did you mean 'xsum'"]),
        (["table6", "--rows", "mam", "--budget", "none"], ["expected a share such as 0.5%"]),
        (["tabel5", "--scale", "small"], ["Did you mean 'table5'"]),
        (["table2", "--task", "sst2", "--data", "/nowhere"], ["does not exist", "'sst2'"]),
        (["table2", "--rows", "mam", "--set", "training.learning_rat=1"], ["Did you mean 'learning_rate'"]),
    ],
)
def test_bad_input_is_refused_with_what_would_work(args, parts):
    message = refusal("reproduce", *args)
    assert [part for part in parts if part not in message] == []


@pytest.mark.parametrize(
    "args", [["claims", "--scale", "paper"], ["table6", "--quick"], ["table6", "--scale", "small", "--rows", "mam"], []]
)
def test_what_does_not_belong_together_is_wrong_usage(args):
    call("reproduce", *args, code=2)


def test_claims_are_tested_on_small_models_also_where_no_scale_is_named(monkeypatch):
    asked = []
    monkeypatch.setattr(reproduce, "_small", lambda target, task, *_, **more: asked.append((target, more["quick"])))
    call("reproduce", "claims")
    call("reproduce", "claims", "--quick")
    call("reproduce", "claims", "--scale", "small")
    assert asked == [("claims", False), ("claims", True), ("claims", False)]


def test_a_method_is_planned_on_the_model_that_runs(tmp_path):
    T5Config(d_model=16, d_ff=32, num_layers=1, num_heads=2, feed_forward_proj="gated-gelu").save_pretrained(tmp_path)
    args = ("--rows", "mam", "--task", "xsum", "--model", tmp_path, "--set", "method=lora(rank=2, at=ffn.gate)")
    (cell,) = data("reproduce", "table6", *args, "--dry-run")["cells"]
    assert cell["rule_share"] is None  # BART, which the paper's shares are of, has no gate
    assert cell["parameters"] == 2 * 2 * (16 + 32)
    assert "whose numbers are left out: mam" in call("reproduce", "table6", *args, "--dry-run").stdout
    assert "ffn.gate" in refusal("reproduce", "table6", *args[:4], *args[6:], "--dry-run")


def test_without_model_and_data_there_is_one_clear_error(tmp_path):
    message = refusal("reproduce", "table6", "--task", "xsum", "-o", tmp_path / "out")
    assert message.count("error:") == 1
    assert "from the hub" in message
    assert "--data DIR" in message
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_rows_run_and_stand_beside_the_printed_numbers(tmp_path, xsum):
    folder, model = xsum
    args = ("reproduce", "table5", "--rows", "lora-s4,lora-s1", "--model", model, "--data", folder,
            "--seed", 1, "--seed", 2, "-o", tmp_path / "out", *TINY)  # fmt: skip
    result = call(*args)
    assert "no accelerator" in result.stderr
    assert "44.59" in result.stdout
    again = call(*args, "--json")
    assert "finished" not in again.stderr, "what is done is not done again"
    first, second = json.loads(again.stdout)["cells"]
    assert set(first["scores"]["rouge2"]) == {"1", "2"}
    assert (first["printed"]["rouge2"], second["printed"]["rouge2"]) == (21.31, 20.83)
    shared = data("reproduce", "table12", "--rows", "lora-ffn-102", "--task", "xsum", *args[4:])
    assert shared["cells"][0]["path"] == first["path"], "a row of two tables runs once"
    metrics = next(Path(first["path"]).rglob("seed-2/metrics.json"))
    lost = json.loads(metrics.read_text())
    metrics.write_text(json.dumps({**lost, "metrics": {**lost["metrics"], "loss": None}}))
    marked = call(*args)
    assert "(1 of 2 diverged)" in marked.stdout
    assert "loss is not a number" in " ".join(marked.stderr.split())


def test_a_score_says_how_many_of_its_runs_diverged():
    scores = {"rouge2": {1: 20.0, 2: 22.0}}
    assert Reproduced(None, Path(), scores, ()).text("rouge2") == "21.00 ± 1.41"
    assert Reproduced(None, Path(), scores, (), (2,)).text("rouge2") == "21.00 ± 1.41 (1 of 2 diverged)"
