"""Runs the contract on model types, each in a process of its own, and writes ``coverage.json`` and ``coverage.md``.

Usage: ``python -m unipetl.testing.coverage_report docs`` (an hour on two cores); ``--types bert,gpt2`` does some again.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

from unipetl.errors import CheckError
from unipetl.files import from_json, write_text
from unipetl.testing.apart import in_a_process
from unipetl.testing.coverage import METHODS, Row, check_type, model_types

#: The groups that the summary counts: a type passes one if every method of it is ``ok``.
GROUPS = {
    "LoRA, adapters (sequential, parallel, scaled)": ("lora", "adapter", "parallel_adapter", "scaled_parallel_adapter"),
    "prefix, multi-head parallel adapter, MAM": ("prefix_tuning", "multi_head_parallel_adapter", "mam"),
}
#: What every process needs, imported once.
_PREPARED = ("transformers.models.auto.modeling_auto", "unipetl.testing.coverage")


def main(arguments: list[str] | None = None) -> int:
    """Run it; the exit code is 1 if a bug was found."""
    parser = argparse.ArgumentParser(prog="python -m unipetl.testing.coverage_report", description=__doc__)
    parser.add_argument("folder", type=Path, help="where coverage.json and coverage.md are written")
    parser.add_argument("--types", default="", help="model types, separated by commas; all by default")
    parser.add_argument("--methods", default="", help="methods, separated by commas; all of the table by default")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default: 2)")
    parser.add_argument("--gigabytes", type=float, default=6, help="of memory for one model type (default: 6)")
    parser.add_argument("--seconds", type=int, default=300, help="for one model type (default: 300)")
    options = parser.parse_args(arguments)
    path = options.folder / "coverage.json"
    known = from_json(path.read_text(encoding="utf-8"))["types"] if path.exists() else {}
    wanted = options.types.split(",") if options.types else model_types()
    methods = {name: METHODS[name] for name in options.methods.split(",")} if options.methods else dict(METHODS)
    memory = int(options.gigabytes * 2**30)
    with ThreadPoolExecutor(options.jobs) as pool:
        tasks = [pool.submit(_row, name, methods, options.seconds, memory) for name in wanted]
        for number, task in enumerate(as_completed(tasks), start=1):
            row = task.result()
            before = known.get(row["model_type"], {})
            if methods != METHODS and before.get("status") == row["status"] == "checked":
                row["methods"] = {**before["methods"], **row["methods"]}
            known[row["model_type"]] = row
            sys.stderr.write(f"[{number}/{len(tasks)}] {row['model_type']}: {_short(row)}\n")
            _write(options.folder, known)
    return int(any("bug" in _short(row) for row in known.values()))


def _row(name: str, methods: dict[str, str], seconds: int, memory: int) -> dict[str, Any]:
    """Check one type in a process of its own, which ends with what it holds."""
    try:
        row: Row = in_a_process(_check, name, methods, seconds, memory=memory, prepare=_PREPARED)
    except CheckError as fault:
        row = Row(name, status=f"given up: {fault}")
    return asdict(row)


def _check(name: str, methods: dict[str, str], seconds: int) -> Row:
    import torch
    import transformers

    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    return check_type(name, methods=methods, seconds=seconds)


def _short(row: dict[str, Any]) -> str:
    if row["status"] != "checked":
        return str(row["status"])
    kinds = Counter(result.partition(":")[0] for result in row["methods"].values())
    return ", ".join(f"{count} {kind}" for kind, count in kinds.items())


def _write(folder: Path, rows: dict[str, Any]) -> None:
    import torch
    import transformers

    ordered = {name: rows[name] for name in sorted(rows)}
    data = {
        "transformers": transformers.__version__,
        "torch": torch.__version__.partition("+")[0],
        "methods": {
            name: text for name, text in METHODS.items() if any(name in row["methods"] for row in rows.values())
        },
        "left": len(set(model_types()) - set(rows)),
        "types": ordered,
    }
    write_text(folder / "coverage.json", json.dumps(data, indent=1, ensure_ascii=False) + "\n")
    write_text(folder / "coverage.md", page(data))


def passes(row: dict[str, Any], methods: tuple[str, ...]) -> bool:
    """Return whether a type was checked and every one of some methods is ok."""
    return row["status"] == "checked" and all(row["methods"].get(name) == "ok" for name in methods)


def page(data: dict[str, Any]) -> str:
    """Return the table as Markdown."""
    rows = data["types"].values()
    checked = [row for row in rows if row["status"] == "checked"]
    lines = [
        "# Coverage",
        "",
        f"Model types that transformers {data['transformers']} builds from their default configs, made small and",
        "random, went through the laws of `unipetl.testing` with each method: identity at initialisation, gradients,",
        "the base left alone, exact detaching, saving and loading, folding, gradient checkpointing of both kinds,",
        "bfloat16, padding, and generation with a cache as without. (torch.compile is not part of it:",
        "`check_architecture(model, compiled=True)` checks it for one model.)",
        "This page is written by `nox -s coverage_models`.",
        "",
        f"Of {len(rows)} types, {len(checked)} could be built and called; the rest are listed below with their reason."
        + (f" Another {data['left']} have not been run yet." if data.get("left") else ""),
        "",
        "| methods | types that pass all of them |",
        "|---|---|",
        *(f"| {title} | {sum(passes(row, names) for row in rows)} |" for title, names in GROUPS.items()),
        *(f"| {name} | {sum(passes(row, (name,)) for row in rows)} |" for name in data["methods"]),
        "",
        "✓ passes, – is refused with a reason (see `coverage.json`), **✗** fails. BitFit is refused where a model has",
        "no biases.",
        "",
        "| model type | class | stacks | " + " | ".join(name.replace("_", " ") for name in data["methods"]) + " |",
        "|---|---|---|" + "---|" * len(data["methods"]),
    ]
    for row in checked:
        marks = (_MARKS.get(row["methods"].get(name, "").partition(":")[0], " ") for name in data["methods"])
        stacks = ", ".join(row["checked"])
        lines.append(f"| `{row['model_type']}` | {row['model_class']} | {stacks} | " + " | ".join(marks) + " |")
    faults = [(row, name, text) for row in checked for name, text in row["methods"].items() if text.startswith("bug")]
    if faults:
        lines += ["", "## What fails", "", "| model type | method | law |", "|---|---|---|"]
        lines += [f"| `{row['model_type']}` | {name} | {_cell(text[5:])} |" for row, name, text in faults]
    lines += ["", "## What was not checked", "", "| model type | reason |", "|---|---|"]
    lines += [f"| `{row['model_type']}` | {_cell(row['status'])} |" for row in rows if row["status"] != "checked"]
    return "\n".join(lines) + "\n"


_MARKS = {"ok": "✓", "refused": "–", "bug": "**✗**"}


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|")[:160]


if __name__ == "__main__":
    sys.exit(main())
