"""unipetl import, export and merge: folders of other libraries, and attachments as one."""

from __future__ import annotations

import json
import shutil

import pytest
from transformers import AutoModelForSequenceClassification

import unipetl
from cli.calling import call, data, refusal
from cli.conftest import QUICK
from cli.tiny_task import TINY
from serving.tiny_runs import make_run
from tasks.tiny_text import save_bert, words
from unipetl.experiment.opening import source_of
from unipetl.interop import adapterhub, peft
from unipetl.saved import read
from unipetl.serving import Source
from unipetl.serving.source import Opener
from unipetl.testing import batch, build
from unipetl.testing.compare import close, outputs, scatter

pytestmark = pytest.mark.usefixtures("tiny")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    build("bert").save_pretrained(folder)
    return folder


@pytest.fixture
def saved(base, tmp_path):
    """Two attachments of one base, as folders, and what each computes."""
    found = {}
    for number, name in enumerate(("a", "b")):
        model = build("bert")
        scatter(unipetl.attach(model, "lora(rank=2)", train_head=False), seed=number)
        unipetl.save(model, tmp_path / name)
        found[name] = (tmp_path / name, outputs(model, batch(model)))
    return found


@pytest.mark.parametrize(("kind", "module"), [("peft", peft), ("adapterhub", adapterhub)])
def test_a_run_goes_out_and_comes_back(kind, module, saved, base, tmp_path):
    folder, wanted = saved["a"]
    text = call("export", folder, "--to", kind, "-m", base, "-o", tmp_path / "theirs").stdout
    assert "adapter_config.json" in text
    model = build("bert")
    module.load(model, tmp_path / "theirs")
    close(outputs(model, batch(model)), wanted, "their folder", 1e-6)
    found = data("import", kind, tmp_path / "theirs", "-m", base, "-o", tmp_path / "ours", "--name", "again")
    assert found["parameters"] == sum(p.numel() for p in unipetl.attachments(model)[0].tensors().values())
    again = build("bert")
    unipetl.load(again, tmp_path / "ours")
    close(outputs(again, batch(again)), wanted, "and ours again", 1e-6)


def test_a_run_knows_its_base(trained, tmp_path):
    found = data("export", trained / "seed-0", "--to", "peft", "-o", tmp_path / "lora")
    config = json.loads((tmp_path / "lora" / "adapter_config.json").read_text())
    assert config["peft_type"] == "LORA"
    assert found["method"]["modifications"]
    assert "of its own" in refusal("export", trained / "seed-0", "--to", "peft", "-o", tmp_path / "lora")


def test_a_merge_says_its_law_or_its_error(saved, base, tmp_path):
    (a, _), (b, _) = saved["a"], saved["b"]
    text = call("merge", a, b, "--weights", "0.7,0.3", "-m", base, "-o", tmp_path / "sum").stdout
    assert f"0.7 times the change of '{a}' and 0.3 times the change of '{b}'" in " ".join(text.split())
    assert "Exact" in text
    text = call("merge", a, b, "--how", "ties", "--rank", 2, "-m", base, "-o", tmp_path / "ties").stdout
    assert "TIES" in text
    assert "relative error" in text
    found = data("merge", a, b, "--how", "svd", "--rank", 1, "-m", base, "-o", tmp_path / "svd")
    assert found["exact"] is False
    assert 0 < found["largest_error"] < 1
    assert data("merge", a, b, "--how", "average", "-m", base, "-o", tmp_path / "mean")["exact"] is True


def test_a_merged_attachment_is_the_sum_of_its_parts(saved, base, tmp_path):
    (a, first), (b, _) = saved["a"], saved["b"]
    call("merge", a, a, "--weights", "0.25,0.75", "-m", base, "-o", tmp_path / "same")
    model = build("bert")
    unipetl.load(model, tmp_path / "same")
    close(outputs(model, batch(model)), first, "a quarter and three quarters of one attachment", 1e-5)
    call("merge", a, b, "--how", "stack", "-m", base, "-o", tmp_path / "stack")
    stacked, both = build("bert"), build("bert")
    unipetl.load(stacked, tmp_path / "stack")
    unipetl.load(both, a, name="a")
    unipetl.load(both, b, name="b")
    close(outputs(stacked, batch(both)), outputs(both, batch(both)), "the stack", 1e-5)


def test_runs_with_heads_are_averaged_with_their_heads(trained, tmp_path):
    found = data("merge", trained / "seed-0", trained / "seed-1", "--how", "average", "-o", tmp_path / "mean")
    assert found["exact"] is True
    merged = read(tmp_path / "mean").tensors["model/classifier.weight"]
    heads = [read(trained / f"seed-{seed}" / "adapter").tensors["model/classifier.weight"] for seed in (0, 1)]
    close(merged, (heads[0] + heads[1]) / 2, "the head", 1e-6)


def test_wrong_uses_are_refused(saved, base, trained, tmp_path):
    folder, _ = saved["a"]
    out = ("-o", tmp_path / "out")
    assert "--model" in refusal("export", folder, "--to", "peft", *out)
    assert "at least two" in refusal("merge", folder, "-m", base, *out)
    assert "one weight for each" in refusal("merge", folder, folder, "-w", "1,2,3", "-m", base, *out)
    assert "no meaning for 'average'" in refusal(
        "merge", folder, folder, "-w", "1,2", "--how", "average", "-m", base, *out
    )
    assert "--rank" in refusal("merge", folder, folder, "--how", "svd", "-m", base, *out)
    assert "weight 2: expected a finite number, found nan" in refusal(
        "merge", folder, folder, "-w", "1,nan", "-m", base, *out
    )
    assert "numbers with commas" in refusal("merge", folder, folder, "-w", "1;2", *out, code=2)
    assert "belongs nowhere" in refusal("merge", trained / "seed-0", folder, *out)  # of a base with more layers
    assert "seed-0, seed-1" in refusal("export", trained, "--to", "peft", *out)
    assert "does not exist" in refusal("export", tmp_path / "nowhere", "--to", "peft", *out)
    assert "is no folder" in refusal("import", "peft", tmp_path / "nowhere", "-m", base, *out)
    assert "option of peft, and not of adapterhub" in refusal(
        "import", "adapterhub", folder, "-m", base, *out, "--shift-positions"
    )
    assert "there is no such folder" in refusal("import", "peft", folder, "-m", tmp_path / "nowhere", *out)
    assert "is no PEFT folder" in refusal("import", "peft", folder, "-m", base, *out)
    assert "BertForSequenceClassification" in refusal(
        "import", "peft", folder, "-m", base, *out, "--class", "BertForSequenceClasification"
    )
    call("import", "pefd", folder, "-m", base, *out, code=2)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("taken", ["run", "attachment", "file", "link to nothing"])
def test_an_out_that_is_taken_is_refused_and_stays_as_it_was(taken, saved, base, trained, tmp_path):
    folder, _ = saved["a"]
    out = {"run": trained / "seed-0", "attachment": saved["b"][0]}.get(taken, tmp_path / "taken")
    if taken == "file":
        out.write_text("mine", encoding="utf-8")
    if taken == "link to nothing":
        out.symlink_to(tmp_path / "nowhere")
    before = {one: one.read_bytes() for one in sorted(out.rglob("*")) if one.is_file()}
    call("export", folder, "--to", "peft", "-m", base, "-o", tmp_path / "theirs")
    for line in (
        ("import", "peft", tmp_path / "theirs", "-m", base),
        ("merge", folder, folder, "-m", base),
        ("export", folder, "--to", "peft", "-m", base),
        ("fold", trained / "seed-0"),
    ):
        assert "exists; a" in (told := refusal(*line, "-o", out))
        assert "is written into a folder of its own" in told
    assert {one: one.read_bytes() for one in sorted(out.rglob("*")) if one.is_file()} == before
    assert not (tmp_path / "nowhere").exists()


def test_a_folder_that_is_both_is_the_run(saved, trained, tmp_path):
    both = tmp_path / "both"
    shutil.copytree(trained / "seed-0", both)
    for one in saved["a"][0].iterdir():
        shutil.copy(one, both)
    assert source_of(both).attachment == both / "adapter"
    assert Opener(tasks={TINY.name: TINY}).open(Source("both", both)).facts["task"] == TINY.name
    assert "Run of seed 0" in call("inspect", both).stdout


def test_what_a_format_cannot_say_is_refused(tmp_path):
    run = tmp_path / "run"
    call("train", "-t", TINY.name, "-x", "adapter(rank=2)", "-o", run, *QUICK, "--seed", 0)
    assert "unipetl.save keeps every method" in refusal("export", run, "--to", "peft", "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_run_whose_labels_are_those_of_its_training_file(tmp_path):
    rows = [{"text": words(number, number + 1), "label": ("good", "bad")[number % 2]} for number in range(12)]
    base = save_bert(tmp_path / "base")
    made = [
        make_run(tmp_path / name, "csv-classification", base, "lora(rank=2)", rows=rows, seed=seed)
        for seed, name in enumerate(("first", "second"))
    ]
    call("export", made[0], "--to", "peft", "-o", tmp_path / "theirs")
    assert "Exact" in call("merge", *made, "-o", tmp_path / "both").stdout
    told = refusal("import", "peft", tmp_path / "theirs", "-m", base, "-o", tmp_path / "bare")
    assert "names a module 'classifier'" in told
    assert "the right base, and class" in told
    kind = type(AutoModelForSequenceClassification.from_pretrained(base)).__name__
    call("import", "peft", tmp_path / "theirs", "-m", base, "--class", kind, "-o", tmp_path / "back")


def test_a_missing_run_is_said_to_be_missing(tmp_path):
    assert "does not exist" in refusal("merge", tmp_path / "nope", tmp_path / "nope", "-o", tmp_path / "both")
