from __future__ import annotations

import pytest

from cli.calling import call, data, refusal

PLAN = """
tasks: {sst2: {model: roberta-base}, mnli: {model: bert-base-uncased}}
methods: {lora: lora, full: full, mixed: {method: "mam(mlp=none)"}}
"""


def test_params_solves_for_sizes():
    first, second = data("params", "-m", "roberta-base", "-x", "lora", "-x", "mam(length=4, rank=?, mlp=none)",
                         "--budget", "0.5%")["methods"]  # fmt: skip
    assert first["notation"] == "lora(rank=17)"
    assert "length=4" in second["notation"]
    for row in (first, second):
        assert row["share"] == pytest.approx(0.005, rel=0.05)


def test_params_counts_by_the_papers_rule_if_asked():
    (row,) = data("params", "-m", "roberta-base", "-x", "prefix_tuning", "--budget", "590k", "--count", "paper")[
        "methods"
    ]
    assert row["notation"] == "prefix_tuning(length=32)"
    assert row["paper_parameters"] == 589_824


def test_of_the_whole_catalogue_what_cannot_meet_a_budget_is_told():
    text = call("params", "-m", "roberta-base", "--budget", "0.5%").stdout
    assert "lora(rank=17)" in text
    assert "prefix_tuning: budget: no size" in text
    assert "bitfit" not in text


def test_a_recipe_gets_the_size():
    args = ("train", "-t", "sst2", "-m", "roberta-base", "-x", "mam(length=4, rank=?, mlp=none)", "--dry-run")
    assert data(*args, "--budget", "1%")["method"] == "mam(length=4, rank=63, mlp=none)"


def test_a_comparison_gets_sizes_task_by_task(tmp_path):
    (tmp_path / "plan.yaml").write_text(PLAN)
    tasks = data("compare", tmp_path / "plan.yaml", "--budget", "200k", "--dry-run")["plan"]["tasks"]
    for part in tasks.values():
        assert set(part["methods"]) == {"lora", "mixed"}
        assert part["methods"]["lora"]["method"] == "lora(rank=5)"


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (["-x", "lora", "--budget", "half"], ["expected a share such as 0.5%", "'half'"]),
        (["-x", "bitfit", "--budget", "1%"], ["has no size to solve for", "102,144"]),
        (["-x", "lora", "--budget", "500%"], ["are more than the model's own 124,055,040", "such as 0.5%"]),
        (["-x", "lora", "--budget", "10000b"], ["are more than the model's own"]),
        (["-x", "lora", "--budget", "10"], ["The nearest: 36,864 (0.030%) with lora(rank=1)"]),
    ],
)
def test_what_cannot_be_met_is_refused(args, parts):
    message = refusal("params", "-m", "roberta-base", *args)
    assert [part for part in parts if part not in message] == []
