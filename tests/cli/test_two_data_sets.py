"""Two files of one's own in one plan: every verb tells them apart."""

from __future__ import annotations

import pytest
import yaml

from cli.calling import call, data
from tasks.tiny_text import save_bert


@pytest.fixture
def plan(tmp_path):
    model = save_bert(tmp_path / "model")
    for name, words in (("reviews", ("good", "bad")), ("news", ("w1", "w2"))):
        rows = [f"{words[number % 2]} w{number},{number % 2}" for number in range(8)]
        (tmp_path / f"{name}.csv").write_text("text,label\n" + "\n".join(rows) + "\n")

    def part(name):
        files = {which: str(tmp_path / f"{name}.csv") for which in ("train", "validation", "test")}
        return {"task": "csv-classification", "model": model, "options": files}

    training = {"max_steps": 1, "per_device_train_batch_size": 4, "use_cpu": True, "save_strategy": "no"}
    tasks = {name: part(name) for name in ("reviews", "news")}
    path = tmp_path / "plan.yaml"
    path.write_text(
        yaml.safe_dump({"tasks": tasks, "methods": {"LoRA": "lora(rank=1)"}, "training": training}, sort_keys=False)
    )
    return path


def test_a_plan_says_them_before_anything_runs(plan):
    said = call("compare", plan, "--dry-run").stdout
    assert [line.split()[0] for line in said.splitlines()[2:4]] == ["reviews", "news"]
    tasks = data("compare", plan, "--budget", "128", "--dry-run")["plan"]["tasks"]
    assert [tasks[name]["methods"]["LoRA"]["method"] for name in ("reviews", "news")] == ["lora(rank=2)"] * 2


@pytest.mark.slow
def test_two_files_are_compared_resumed_and_reported(plan, tmp_path):
    out = tmp_path / "out"
    found = data("compare", plan, "-o", out)
    assert [table["task"] for table in found["tables"]] == ["reviews", "news"]
    assert sorted(path.name for path in (out / "runs").iterdir()) == ["news", "reviews"]
    again = call("compare", out)
    assert "finished:" not in again.stderr
    assert "reviews: accuracy" in again.stdout
    assert "reviews" in call("inspect", out).stdout
    call("report", out)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert [f"{name}, {tmp_path / 'model'}" in page for name in ("reviews", "news")] == [True, True]
