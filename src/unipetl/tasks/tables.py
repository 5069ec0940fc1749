"""A user's own file of examples: JSON lines, CSV, TSV or Parquet. Every fault is reported with its line."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from unipetl.errors import TaskError
from unipetl.files import from_json
from unipetl.tasks.rows import Rows

#: Ending -> how it is read.
KINDS = {".jsonl": "json", ".ndjson": "json", ".json": "json", ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet"}
_FIELD = 1 << 24  # characters that one field of a CSV may have

Line = tuple[int, dict[str, Any]]  # where an example begins, from 1, and its values


def read_table(path: str | Path) -> Rows:
    """Read a file of examples.

    CSV and TSV need a first line with the columns' names; JSON is one object a line (or one list of objects).

    Raises:
        TaskError: it is missing, empty, damaged, not in UTF-8, or of another kind; the message names the line.
    """
    file = Path(path).expanduser()
    kind = KINDS.get(file.suffix.lower())
    if kind is None:
        raise TaskError(f"{str(file)!r}: the kind of a file shows in its ending, one of {', '.join(sorted(KINDS))}.")
    try:
        if not file.is_file():
            what = "is a folder" if file.is_dir() else f"does not exist (looked in {str(Path.cwd())!r})"
            raise TaskError(f"{str(file)!r} {what}; a file of examples is expected.")
        rows = _parquet(file) if kind == "parquet" else _read(file, kind)
    except OSError as error:
        raise TaskError(f"cannot read {str(file)!r}: {error.strerror or error}.") from error
    if not len(rows):
        raise TaskError(f"{str(file)!r} has no examples.")
    return rows


def _read(file: Path, kind: str) -> Rows:
    if kind != "json":
        return _columns(file, _delimited(file, "\t" if kind == "tsv" else ","), "line")
    return (
        _columns(file, _list(file), "element") if _starts_with_bracket(file) else _columns(file, _objects(file), "line")
    )


def _columns(file: Path, lines: Iterator[Line], word: str) -> Rows:
    """Gather examples by column; a column that an example lacks holds None there."""
    columns: dict[str, list[Any]] = {}
    starts: list[int] = []
    for start, values in lines:
        for name in values.keys() - columns.keys():
            columns[name] = [None] * len(starts)
        for name, column in columns.items():
            column.append(values.get(name))
        starts.append(start)
    return Rows(str(file), columns, lambda number: f"{word} {starts[number]}")


def _text_lines(file: Path) -> Iterator[tuple[int, str]]:
    """Return a file's lines, decoded one by one so that a wrong byte can be named."""
    with file.open("rb") as opened:
        for number, raw in enumerate(opened, start=1):
            if number == 1 and raw.startswith((b"\xff\xfe", b"\xfe\xff")):
                raise TaskError(f"{str(file)!r} is UTF-16; save it as UTF-8.")
            try:
                yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                wrong = raw[error.start]
                raise TaskError(
                    f"{file}, line {number}: byte {error.start + 1} (0x{wrong:02x}) is not UTF-8. Save the file as "
                    f"UTF-8; if it is Latin-1: iconv -f latin1 -t utf-8 {file.name} > new{file.suffix}"
                ) from error


def _starts_with_bracket(file: Path) -> bool:
    if file.suffix.lower() != ".json":
        return False
    with file.open("rb") as opened:
        return opened.read(64).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")


def _objects(file: Path) -> Iterator[Line]:
    for number, line in _text_lines(file):
        if line.strip():
            try:
                value = from_json(line)
            except ValueError as error:
                raise TaskError(f"{file}, line {number}: this is not JSON: {error}.") from error
            yield number, _object(value, f"{file}, line {number}")


def _list(file: Path) -> Iterator[Line]:
    try:
        values = from_json("".join(line for _, line in _text_lines(file)))
    except ValueError as error:
        raise TaskError(f"{file}: this is not JSON: {error}.") from error
    for number, value in enumerate(values, start=1):
        yield number, _object(value, f"{file}, element {number}")


def _object(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TaskError(f'{place}: expected an object such as {{"text": "..."}}; found {type(value).__name__}.')
    return value


def _delimited(file: Path, delimiter: str) -> Iterator[Line]:
    csv.field_size_limit(_FIELD)
    reader = csv.reader((line for _, line in _text_lines(file)), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        start = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise TaskError(f"{file}, line {start}: this is not {file.suffix[1:].upper()}: {error}.") from error
        if not fields:
            continue
        if header is None:
            header = _header(fields, file)
        elif len(fields) != len(header):
            raise TaskError(
                f"{file}, line {start}: found {len(fields)} fields where the first line has {len(header)} "
                f"({', '.join(header)}). A field with a separator or a line break in it needs double quotes."
            )
        else:
            yield start, dict(zip(header, fields, strict=True))


def _header(fields: list[str], file: Path) -> list[str]:
    names = [name.strip() for name in fields]
    twice = [name for place, name in enumerate(names) if not name or name in names[:place]]
    if twice:
        raise TaskError(f"{file}, line 1: every column needs a name of its own; found {', '.join(map(repr, names))}.")
    return names


def _parquet(file: Path) -> Rows:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(file, memory_map=False)
        columns: Mapping[str, list[Any]] = table.to_pydict()
    except pyarrow.ArrowException as error:
        raise TaskError(f"{str(file)!r} is not a readable Parquet file: {str(error).splitlines()[0]}") from error
    return Rows(str(file), dict(columns), lambda number: f"row {number + 1}")
