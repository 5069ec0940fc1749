from __future__ import annotations

import json

import jsonschema
import pytest

from cli.calling import call, data, refusal
from unipetl import catalogue, parse
from unipetl.cli.methods import entries_in, table_rows


def test_table_has_every_method_with_the_rows_of_its_data():
    text = call("methods").stdout
    for entry in catalogue.ENTRIES:
        assert f"\n{entry.name} " in text
        for row in entry.build().rows():
            assert row["functional form"] in text
            assert row["composition"] in text


def test_json_is_the_catalogue():
    described = data("methods")
    assert [one["name"] for one in described] == list(catalogue.names())
    lora = next(one for one in described if one["name"] == "lora")
    assert lora["settings"]["rank"] == 16
    assert parse(str(lora["name"])).plain() == lora["method"]


def test_places_that_are_changed_alike_share_a_row():
    rows = table_rows(parse("lora"))
    assert len(rows) == 1
    assert rows[0][2] == "attention.query, attention.value"
    assert len(table_rows(parse("mam"))) == 2
    assert table_rows(parse("bitfit")) == [["(trains bias)", "-", "-", "-"]]


def test_one_method_is_explained():
    text = call("methods", "mam(length=16, rank=16)").stdout
    assert "Mix-And-Match adapter" in text
    assert "softmax(x W_q P_kᵀ) P_v" in text
    assert "table 6" in text
    assert "head_attention" in text  # its notation
    assert "589,824 (0.475 %)" in text
    length = next(line for line in text.splitlines() if line.startswith("length"))
    assert length.split() == ["length", "16", "30", "int"]


def test_a_sum_is_explained_by_its_parts():
    text = "prefix_tuning(length=30) + lora(rank=8)"
    assert [entry.name for entry in entries_in(text)] == ["prefix_tuning", "lora"]
    shown = call("methods", text, "--model", "gpt2").stdout
    assert "Li and Liang 2021" in shown
    assert "Hu et al. 2022" in shown
    assert "GPT2LMHeadModel" in shown


def test_a_method_of_ones_own_is_read_from_a_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(parse("mam(length=5)").to_yaml(), encoding="utf-8")
    described = data("methods", path)
    assert described["method"] == parse("mam(length=5)").plain()
    assert described["entries"] == []
    assert described["plan"]["model_class"] == "RobertaModel"


def test_schema_describes_methods():
    schema = json.loads(call("schema", "method").stdout)
    for entry in catalogue.ENTRIES:
        jsonschema.validate(entry.build().plain(), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"modifications": [{"representation": "fnn", "form": "prompt"}]}, schema)


def test_schema_describes_recipes():
    schema = json.loads(call("schema", "recipe").stdout)
    jsonschema.validate({"task": "sentiment", "method": "lora(rank=8)", "seeds": [0, 1]}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"task": "sentiment", "methd": "lora"}, schema)


def test_schema_of_something_else_is_usage():
    assert "Did you mean" in refusal("schema", "recip", code=2)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("mamm", ["unknown method 'mamm'", "Did you mean 'mam'"]),
        ("lora(ranc=8)", ["unknown setting 'ranc'", "Did you mean 'rank'"]),
        ("lora(rank=-1)", ["rank", "-1"]),
        ("lora(rank=", ["cannot read this", "^"]),
        ("lora(8)", ["named settings only"]),
        ("", ["expected text"]),
        ("nothing_here.yaml", ["no such file"]),
        ("modifications: [", ["not YAML"]),
        ("__import__('os')", ["__import__"]),
    ],
)
def test_bad_methods_are_refused_with_what_would_work(text, parts):
    message = refusal("methods", text)
    assert message.startswith("error: ")
    assert [part for part in parts if part not in message] == []


@pytest.mark.parametrize("content", [b"", b"\x80\x81\xff", b"- 1\n", b"a: [1"])
def test_bad_method_files_are_refused(tmp_path, content):
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    assert refusal("methods", path).startswith(f"error: {path}: ")


def test_a_folder_is_no_method_file(tmp_path):
    path = tmp_path / "folder.yaml"
    path.mkdir()
    assert "directory" in refusal("methods", path)
