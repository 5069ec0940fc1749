"""The tables: budget groups, means, the best, what is trained where, and the same content in Markdown and LaTeX."""

from __future__ import annotations

import re
from statistics import mean, stdev

import pytest

from reporting.made import BASE, write_comparison, write_run
from unipetl.experiment.recipe import Recipe
from unipetl.markdown import escape as markdown_escape
from unipetl.reporting import gather, tables, to_latex, to_markdown
from unipetl.reporting.latex import escape as latex_escape
from unipetl.reporting.sheets import percent, spread

NASTY = r"<script>alert(1)</script> & 50% $x_1^2$ #{a} ~ \ `b` [c](d) | *e*"


def texts(sheet):
    return [(group.title, [[cell.text for cell in row] for row in group.rows]) for group in sheet.groups]


def test_methods_stand_in_groups_of_equal_budget(tmp_path):
    sizes = {"LoRA": 5_000, "adapter": 1_000}
    found = gather([write_comparison(tmp_path, sizes=sizes)])
    assert texts(tables.overview(found)) == [
        ("nothing trained", [["4", "zero-shot", "0 %", "89.50 ± 0.71"]]),
        ("up to 0.1 % of the parameters", [["2", "adapter", "0.10 %", "87.50 ± 0.71"]]),
        ("0.1 to 1 %", [["1", "LoRA", "0.50 %", "84.50 ± 0.71"]]),
        ("the whole model", [["3", "full", "100 %", "84.50 ± 0.71"]]),
    ]


@pytest.mark.parametrize(
    ("size", "group"),
    [
        (0, "nothing trained"),
        (1, "up to 0.1 % of the parameters"),
        (1_000, "up to 0.1 % of the parameters"),
        (1_100, "0.1 to 1 %"),
        (10_000, "0.1 to 1 %"),
        (67_000, "1 to 10 %"),
        (100_001, "more than 10 %"),
        (BASE, "the whole model"),
        (BASE + 500, "the whole model"),
    ],
)
def test_every_budget_has_a_group(tmp_path, size, group):
    folder = write_run(tmp_path, Recipe(task="sst2", method="lora"), 0, score=1.0, parameters=size)
    assert tables.budget(gather([folder]).columns[0].experiments[0]) == group


def test_a_cell_is_the_mean_and_the_deviation_of_a_sample():
    values = [81.0, 84.5, 90.25]
    assert spread(values).text == f"{mean(values):.2f} ± {stdev(values):.2f}"
    assert spread([81.0]).text == "81.00"
    assert (spread([]).text, spread([]).value) == ("–", None)
    assert [percent(share).text for share in (0, 0.00047, 0.0054, 0.067, 0.25, 1.0004)] == [
        "0 %", "0.047 %", "0.54 %", "6.70 %", "25.0 %", "100 %",
    ]  # fmt: skip


@pytest.mark.parametrize(("better", "best"), [(True, "adapter"), (False, "LoRA")])
def test_the_best_is_the_best_of_what_trains_a_part(tmp_path, better, best):
    for label, score, size in (("LoRA", 80, 5_000), ("adapter", 85, 5_000), ("full", 99, BASE), ("none", 1, 0)):
        method = {"LoRA": "lora", "adapter": "adapter", "full": "full", "none": "none"}[label]
        recipe = Recipe(task="sst2", method=method, name=label)
        write_run(tmp_path / label, recipe, 0, score=score, parameters=size, better=better)
    found = gather([tmp_path / one for one in ("LoRA", "adapter", "full", "none")])
    sheet = tables.detail(found, found.columns[0], "task")
    bold = [row[1].text for group in sheet.groups for row in group.rows if any(cell.best for cell in row)]
    assert bold == [best]
    assert ("higher" if better else "lower") in sheet.caption


def test_equals_are_all_best(tmp_path):
    scores = {(label, seed): 80.0 for label in ("LoRA", "adapter") for seed in (0, 1)}
    found = gather([write_comparison(tmp_path, scores=scores)])
    assert [one.label for one in found.columns[0].best()] == ["LoRA", "adapter"]


def test_tasks_stand_side_by_side_and_holes_are_dashes(tmp_path):
    write_comparison(tmp_path / "a")
    write_comparison(tmp_path / "b", {"LoRA": "lora(rank=2)"}, tasks=("mnli",), sizes={"LoRA": 50_000})
    found = gather([tmp_path / "a", tmp_path / "b"])
    sheet = tables.overview(found)
    assert [head.text for head in sheet.heads][2:] == [
        "sst2: share", "sst2: accuracy ↑", "mnli: share", "mnli: accuracy ↑",
    ]  # fmt: skip
    rows = {row[1]: (title, row[2:]) for title, rows in texts(sheet) for row in rows}
    assert rows["adapter"] == ("0.1 to 1 %", ["0.50 %", "87.50 ± 0.71", "–", "–"])
    assert rows["LoRA"] == (
        "budgets that differ between the tasks",
        ["0.50 %", "84.50 ± 0.71", "5.00 %", "84.50 ± 0.71"],
    )


def test_models_of_one_task_are_columns_of_their_own(tmp_path):
    for model in (None, "roberta-base"):
        recipe = Recipe(task="sst2", method="lora", model=model)
        write_run(tmp_path / str(model), recipe, 0, score=80)
    found = gather([tmp_path / "None", tmp_path / "roberta-base"])
    assert [column.title for column in found.columns] == ["sst2", "sst2, roberta-base"]


def test_every_metric_has_a_column(tmp_path):
    folder = write_run(tmp_path, Recipe(task="xsum", method="lora"), 0, score=20, metric="rouge2", more={"rouge1": 41})
    found = gather([folder])
    sheet = tables.detail(found, found.columns[0], "task")
    assert [head.text for head in sheet.heads][5:8] == ["rouge2 ↑", "loss", "rouge1"]
    assert [cell.text for cell in sheet.groups[0].rows[0]][5:8] == ["20.00", "0.50", "41.00"]


def test_the_breakdown_has_the_axes_the_places_and_their_cost(tmp_path):
    folder = write_run(tmp_path, Recipe(task="sst2", method="lora(rank=2)"), 0, score=80)
    found = gather([folder])
    assert texts(tables.breakdown(found, found.columns[0], "places")) == [
        (
            "1. lora(rank=2)",
            [
                ["encoder.*.ffn", "ReLU(x W_down) W_up", "parallel", "h ← h + Δh", "2", "4,096"],
                ["task head", "trained in place", "", "", "1", "64"],
                ["pretrained parameters", "trained in place", "", "", "1", "8"],
            ],
        )
    ]
    (folder / "plan.json").unlink()  # a run of before there was one
    found = gather([folder])
    ((_, rows),) = texts(tables.breakdown(found, found.columns[0], "places"))
    assert [row[-1] for row in rows] == ["–"] * len(rows)
    assert {row[0] for row in rows} == {"attention.query", "attention.value"}


def test_environments_that_differ_have_a_column_each(tmp_path):
    folder = write_comparison(tmp_path)
    path = next(folder.glob("runs/sst2/full-*/seed-0/environment.json"))
    path.write_text(
        path.read_text().replace("3.12.1", "3.11.7").replace('"notes": []', '"notes": ["2 inputs were cut"]')
    )
    found = gather([folder])
    sheet = tables.environments(found)
    assert [head.text for head in sheet.heads] == ["What", "7 runs", "1 run"]
    assert ["python", "3.12.1", "3.11.7"] in texts(sheet)[0][1]
    assert tables.notes(found) == ["sst2: 2 inputs were cut"]


def test_markdown_has_every_table_and_command(tmp_path):
    found = gather([write_comparison(tmp_path, scores={("full", 0): None})])
    text = to_markdown(found)
    assert "|  | *0.1 to 1 %* |" in text
    assert "| 2 | adapter | 5,000 | 0.50 % | 0.25 % | **87.50 ± 0.71** |" in text
    assert "| sst2 | full | 0 | PlanError | it makes no \\<sense\\> |" in text
    assert "    unipetl train --task sst2 --method 'lora(rank=2)' --seed 0 --seed 1" in text


def test_latex_has_booktabs_tables(tmp_path):
    found = gather([write_comparison(tmp_path, tasks=("sst2", "mnli"))])
    text = to_latex(found)
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 3
    for rule in (r"\toprule", r"\midrule", r"\bottomrule"):
        assert rule in text
    assert r"adapter & 0.50 \% & \textbf{87.50 $\pm$ 0.71} & 0.50 \% & \textbf{87.50 $\pm$ 0.71} \\" in text
    rows = [line for line in text.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    widths = {len(row.split(" & ")) for row in rows}
    assert widths == {5, 7}


def test_nothing_in_a_name_is_markup():
    assert re.sub(r"\\[A-Za-z]+\{\}|\\[&%$#_{}]", "", latex_escape(NASTY)).isascii()
    left = re.sub(r"\\text[a-z]+\{\}|\\[&%$#_{}]", "", latex_escape(NASTY))
    assert not set(left) & set("\\&%$#_{}~^<>|")
    assert not set(re.sub(r"\\.", "", markdown_escape(NASTY))) & set("\\`*_{}[]<>#|~&!$")
    assert markdown_escape("a\nb") == latex_escape("a\nb") == "a b"


def test_a_name_is_no_option_of_the_line_before_it_in_latex(tmp_path):
    found = gather([write_comparison(tmp_path, {"[1] LoRA": "lora(rank=2)", "* adapter": "adapter(rank=2)"})])
    lines = to_latex(found).splitlines()
    assert not [line for line in lines if line.lstrip().startswith(("[", "*"))]
    assert sum(line.startswith(("{}[1] LoRA", "{}* adapter")) for line in lines) == 2
