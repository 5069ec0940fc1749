"""Files of examples: every kind reads the same, and every fault is reported with its place."""

from __future__ import annotations

import json

import pyarrow
import pyarrow.parquet
import pytest

from unipetl.errors import TaskError
from unipetl.tasks.rows import Rows
from unipetl.tasks.tables import read_table

ROWS = [{"text": "ţară, “da”\nsau nu", "label": "1"}, {"text": 'a "b"', "label": "0"}]


def csv_text(separator):
    quoted = [[f'"{value.replace(chr(34), chr(34) * 2)}"' for value in row.values()] for row in ROWS]
    return "\r\n".join(separator.join(fields) for fields in [["text", "label"], *quoted]) + "\r\n"


def write(path, kind):
    if kind == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    else:
        lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS)
        texts = {"csv": csv_text(","), "tsv": csv_text("\t"), "jsonl": lines + "\n\n", "json": json.dumps(ROWS)}
        path.write_text("\ufeff" + texts[kind], encoding="utf-8", newline="")
    return path


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "json", "parquet"])
def test_every_kind_reads_the_same(tmp_path, kind):
    rows = read_table(write(tmp_path / f"data.{kind}", kind))
    assert len(rows) == 2
    assert rows.columns == {name: [row[name] for row in ROWS] for name in ("text", "label")} or kind in ("csv", "tsv")
    assert [text.replace("\r", "") for text in rows.texts("text")] == [row["text"] for row in ROWS]


def test_json_lines_in_a_json_file_are_read(tmp_path):
    path = tmp_path / "data.json"
    path.write_text('{"a": 1}\n{"a": 2, "b": "x"}\n')
    assert read_table(path).columns == {"a": [1, 2], "b": [None, "x"]}


FAULTS = [
    ("data.jsonl", b"", "has no examples"),
    ("data.csv", b"", "has no examples"),
    ("data.csv", b"text,label\n", "has no examples"),
    ("data.json", b"[]", "has no examples"),
    ("data.jsonl", b'{"a": 1}\n{"a": }\n', "line 2: this is not JSON"),
    ("data.jsonl", b'{"a": 1}\n[1]\n', "line 2: expected an object.*found list"),
    ("data.json", b'[{"a": 1}, 3]', "element 2: expected an object"),
    ("data.json", b"[1", "this is not JSON"),
    ("data.jsonl", '{"a": 1}\n{"a": "\xe9"}\n'.encode("latin1"), r"line 2: byte 8 \(0xe9\) is not UTF-8.*iconv"),
    ("data.csv", "text\nab\xe9\n".encode("latin1"), r"line 2: byte 3 \(0xe9\) is not UTF-8"),
    ("data.csv", "text\nab\n".encode("utf-16"), "is UTF-16; save it as UTF-8"),
    ("data.csv", b"text,label\na,b\na,b,c\n", "line 3: found 3 fields where the first line has 2"),
    ("data.csv", b'text\n"open\n', "line 2: this is not CSV"),
    ("data.csv", b"text,text\na,b\n", "line 1: every column needs a name of its own"),
    ("data.csv", b"text,\na,b\n", "line 1: every column needs a name of its own"),
    ("data.parquet", b"PAR1 no", "is not a readable Parquet file"),
    ("data.txt", b"a", "the kind of a file shows in its ending"),
]


@pytest.mark.parametrize(("name", "content", "message"), FAULTS)
def test_a_fault_is_reported_with_its_place(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(TaskError, match=message) as caught:
        read_table(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(TaskError, match=r"nowhere\.csv' does not exist \(looked in"):
        read_table(tmp_path / "nowhere.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(TaskError, match="is a folder"):
        read_table(tmp_path / "folder.csv")


def rows(**columns):
    return Rows("data.csv", columns, lambda number: f"line {number + 2}")


def test_a_missing_column_is_told_its_nearest():
    with pytest.raises(
        TaskError, match=r"data\.csv: there is no column 'sentence'\. Did you mean 'sentense'\? Columns: "
    ):
        rows(sentense=["a"], label=[1]).texts("sentence")


@pytest.mark.parametrize(("value", "found"), [(None, "found nothing"), (3, "found int 3"), (["a"], "found list")])
def test_what_is_no_text_is_named_with_its_line(value, found):
    with pytest.raises(TaskError, match=rf"data\.csv, line 3: 'text' should be text; {found}"):
        rows(text=["a", value]).texts("text")


def test_a_sample_is_the_same_every_time_and_keeps_places():
    whole = rows(text=[str(number) for number in range(100)])
    some = whole.sample(10)
    assert some.columns == whole.sample(10).columns
    assert some.columns["text"] == sorted(some.columns["text"], key=int) != whole.columns["text"][:10]
    assert [some.at(i) for i in range(3)] == [f"data.csv, line {int(text) + 2}" for text in some.columns["text"][:3]]
    assert set(whole.sample(5).columns["text"]) < set(some.columns["text"]), "a smaller sample is part of a larger one"
    assert len(whole.first(7)) == 7
    assert whole.sample(None) is whole.sample(100) is whole.first(None) is whole


def test_objects_in_a_column_are_unpacked():
    found = rows(translation=[{"en": "a", "ro": "b"}, {"en": "c", "ro": "d"}]).unpacked("translation")
    assert found.texts("en") == ["a", "c"]
    assert rows(en=["a"]).unpacked("translation").columns == {"en": ["a"]}
