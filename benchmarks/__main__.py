"""`python -m benchmarks run` measures, `python -m benchmarks page` writes the page. NOTES.md tells the rest."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from benchmarks.clock import main_clock
from benchmarks.crew import crew, own_python
from benchmarks.environment import ROOT, environment
from benchmarks.libraries import NAMES
from benchmarks.measure import run
from benchmarks.methods import TITLES
from benchmarks.page import page
from benchmarks.plan import PARTS, plan
from benchmarks.results import Results
from benchmarks.shapes import SHAPES
from benchmarks.show import show
from benchmarks.summary import Record

RESULTS = Path("runs/benchmarks.json")
QUICK = {"layers": 2, "rows": 2, "tokens": 32, "targets": 16, "prompt": 16, "new_tokens": 8}


def several(text: str) -> list[str]:
    return [one for one in text.split(",") if one]


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run", help="measure, and write a JSON file")
    one.add_argument("--out", type=Path, default=RESULTS)
    one.add_argument("--peft", metavar="PYTHON", help="the interpreter of an environment with PEFT")
    one.add_argument("--adapterhub", metavar="PYTHON", help="the interpreter of an environment with adapters")
    one.add_argument("--parts", type=several, default=list(PARTS), help=",".join(PARTS))
    one.add_argument("--shapes", type=several, default=None, help=",".join(SHAPES))
    one.add_argument("--methods", type=several, default=None, help=",".join(TITLES))
    one.add_argument("--rounds", type=int, default=None, help="that count; one more warms up")
    one.add_argument("--threads", type=int, default=1)
    one.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    one.add_argument("--layers", type=int)
    one.add_argument("--rows", type=int)
    one.add_argument("--tokens", type=int)
    one.add_argument(
        "--add", action="store_true", help="keep what --out has of other steps, of the same commit and machine"
    )
    one.add_argument("--quick", action="store_true", help="two layers, tiny batches, three rounds: to see it work")
    page = commands.add_parser("page", help="write the page in docs/ from a JSON file")
    page.add_argument("results", type=Path, nargs="?", default=RESULTS)
    page.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks.md", help="the results go beside it")
    return top


def write_page(source: Path, out: Path) -> None:
    results = Results.read(source)
    if results.found["quick"] and out.parent == ROOT / "docs":
        raise SystemExit(
            f"{source} is of a quick run, which says nothing about speed: pass --out, or run without --quick."
        )
    out.write_text(page(results), encoding="utf-8")
    out.with_suffix(".json").write_text(json.dumps(results.found) + "\n", encoding="utf-8")


def step_of(record: Record) -> tuple[Any, ...]:
    return tuple(record[key] for key in ("part", "kind", "shape", "changes", "library"))


def earlier(path: Path, now: dict[str, Any]) -> list[Record]:
    """Return the records of a file that was measured like this run. Raises SystemExit where it was not."""
    before = json.loads(path.read_text(encoding="utf-8"))
    for key in ("commit", "processor", "threads", "device", "accelerator"):
        if before["environment"].get(key) != now["environment"].get(key):
            raise SystemExit(
                f"{path} is of another {key}: {before['environment'].get(key)}. Leave --add out to replace it."
            )
    if before["quick"] != now["quick"]:
        raise SystemExit(f"{path} is {'' if before['quick'] else 'not '}of a quick run. Leave --add out to replace it.")
    return before["records"]


def measure(options: argparse.Namespace) -> None:
    pythons = {"unipetl": own_python(), "peft": options.peft, "adapterhub": options.adapterhub}
    pythons = {library: pythons[library] for library in NAMES if pythons[library]}
    steps = [
        step
        for step in plan(options.device)
        if step.part in options.parts and (not options.shapes or step.shape in options.shapes)
    ]
    if options.methods:
        steps = [step.only(options.methods) for step in steps]
    changes: dict[str, Any] = dict(QUICK) if options.quick else {}
    changes |= {key: getattr(options, key) for key in ("layers", "rows", "tokens") if getattr(options, key)}
    rounds = options.rounds or (3 if options.quick else 10)
    clock = main_clock(options.device)
    found: dict[str, Any] = {"environment": environment(options.device, options.threads), "rounds": rounds}
    found |= {"quick": options.quick, "clock": clock, "libraries": {}, "records": []}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    if options.add and options.out.exists():
        found["records"] = earlier(options.out, found)

    def keep(records: list[Record]) -> None:
        show(records, clock)
        again = [step_of(one) for one in records]
        found["records"] = [one for one in found["records"] if step_of(one) not in again] + records
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")

    with crew(pythons, options.device, options.threads) as members:
        found["libraries"] = {library: member.ask("hello") for library, member in members.items()}
        run(steps, members, rounds, changes, keep)


def main() -> None:
    options = parser().parse_args()
    if options.command == "run":
        measure(options)
    else:
        write_page(options.results, options.out)


if __name__ == "__main__":
    main()
