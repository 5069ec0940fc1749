"""``unipetl inspect``: what a folder holds, checked, without a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unipetl.cli import screen
from unipetl.cli.methods import HEADINGS, table_rows
from unipetl.cli.options import Json, examples
from unipetl.cli.results import duration, run_directories, show_comparison, show_results

if TYPE_CHECKING:
    from torch import Tensor

    from unipetl.saved import Saved

EXAMPLES = examples(
    ("a saved attachment: its method, its base, every tensor's checksum", "unipetl inspect adapter/"),
    ("a training run, or a comparison", "unipetl inspect runs/lora"),
    ("for a program", "unipetl inspect adapter/ --json"),
)
#: Files of other libraries: what they are, and what to do with them.
FOREIGN = {
    "adapter_config.json": ("an adapter of PEFT or AdapterHub", " `unipetl import` makes one of ours of it."),
    "config.json": ("a whole model of transformers", ""),
}


def command(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="An attachment, a run or a comparison.")],
    as_json: Json = False,
) -> None:
    """Say what a folder holds. Checksums are verified, no model is needed, no code in it can run."""
    from unipetl import saved

    folder = path.parent if path.name in (saved.DESCRIPTION, saved.TENSORS) and path.is_file() else path
    if (folder / "recipe.yaml").is_file() and folder == path:
        _run(folder, as_json=as_json)
    elif saved.holds_attachment(folder):
        _attachment(saved.read(folder), as_json=as_json)
    elif (folder / "plan.yaml").is_file():
        _comparison(folder, as_json=as_json)
    elif any(folder.glob("seed-*/recipe.yaml")):
        _seeds(folder, as_json=as_json)
    else:
        raise _nothing(folder)


def _nothing(path: Path) -> Exception:
    from unipetl.errors import StorageError

    expected = "expected a folder that unipetl.save, `unipetl train` or `unipetl compare` wrote"
    if not path.exists():
        return StorageError(f"{str(path)!r} does not exist; {expected}.")
    if not path.is_dir():
        return StorageError(f"{str(path)!r} is a file; {expected}.")
    for name, (what, hint) in FOREIGN.items():
        if (path / name).is_file():
            return StorageError(f"{str(path)!r} holds {what} ({name}) and nothing of unipetl's; {expected}.{hint}")
    return StorageError(f"{str(path)!r} holds nothing of unipetl's; {expected}.")


def _run(path: Path, *, as_json: bool) -> None:
    from unipetl.files import memory_text

    data = _run_data(path)
    recipe, result, adapter = data["recipe"], data["result"], data["attachment"]
    if as_json:
        screen.show_json(data)
        return
    screen.show(f"Run of seed {data['seed']} in {path}", style="bold")
    facts = {"task": recipe["task"], "method": str(recipe["method"]), "model": recipe["model"] or "the task's own"}
    if result is None:
        facts["state"] = "not finished; its recipe run there again finishes it"
    else:
        facts |= {
            "state": "finished",
            result["metric"]: f"{result['score']:.4f}",
            "trained": f"{result['parameters']:,} of {result['base_parameters']:,} ({screen.percent(result['share'])})",
            "steps": f"{result['steps']:,} in {duration(result['train_seconds'])}",
            "peak memory": memory_text(result["peak_memory_bytes"]),
        }
    if adapter is not None:
        facts["checksums"] = f"verified (sha256 {adapter['sha256'][:16]}); unipetl inspect {path / 'adapter'}"
    show_facts(facts)


def _seeds(path: Path, *, as_json: bool) -> None:
    from unipetl.experiment.directory import result_if_sound

    paths = run_directories(path)
    data = [_run_data_or_why(one) for one in paths]
    if as_json:
        screen.show_json({"kind": "experiment", "runs": data})
        return
    screen.show(
        f"{screen.counted(len(paths), 'run')} in {path}: {_what_ran(data)}\n",
        style="bold",
    )
    results = [result for one in paths if (result := result_if_sound(one)) is not None]
    if results:
        show_results(results)
    for one in data:
        if "damaged" in one:
            screen.show(f"{one['path']}: {one['damaged']}")
        elif one["result"] is None:
            screen.show(f"{one['path']}: not finished")


def _what_ran(data: Sequence[Mapping[str, Any]]) -> str:
    """Return the task and the method of the first run whose recipe can be read."""
    recipe = next((one["recipe"] for one in data if "recipe" in one), None)
    return "damaged" if recipe is None else f"{recipe['task']}, {recipe['method']}"


def _run_data_or_why(path: Path) -> dict[str, Any]:
    """Return a run of several as data; of one that is damaged what is wrong with it."""
    from unipetl.errors import PetlError

    try:
        return _run_data(path)
    except PetlError as error:
        return {"kind": "run", "path": str(path), "damaged": str(error)}


def _comparison(path: Path, *, as_json: bool) -> None:
    from unipetl.experiment import load_plan
    from unipetl.experiment.table import read

    found = read(path, load_plan(path / "plan.yaml", tasks=None))
    if as_json:
        screen.show_json({"kind": "comparison", "path": str(path), **found.to_dict()})
        return
    screen.show(f"Comparison {found.name or ''} in {path}".replace("  ", " "), style="bold")
    show_comparison(found)


def _run_data(path: Path) -> dict[str, Any]:
    from unipetl import saved
    from unipetl.experiment.directory import RunDirectory

    files = RunDirectory(path)
    recipe, seed = files.read_recipe()
    result = files.result()
    adapter = _described(saved.read(files.adapter)) if files.adapter.is_dir() else None
    return {
        "kind": "run",
        "path": str(path),
        "seed": seed,
        "recipe": recipe.resolved(),
        "result": result.to_dict() if result else None,
        "attachment": adapter,
    }


def _described(saved: Saved) -> dict[str, Any]:
    fields: dict[str, Any] = {key: value for key, value in saved.description.items() if key != "tensors"}
    tensors = [
        {"name": name, "shape": list(one.shape), "dtype": _dtype(one), "size": one.numel()}
        for name, one in saved.tensors.items()
    ]
    return {"kind": "attachment", **fields, "verified": True, "tensors": tensors}


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _attachment(saved: Saved, *, as_json: bool) -> None:
    description, method = saved.description, saved.method()
    if as_json:
        screen.show_json(_described(saved))
        return
    size = sum(one.numel() for one in saved.tensors.values())
    base, written = description["base"], description.get("versions")
    versions = written if isinstance(written, dict) else {}
    screen.show(f"Attachment {saved.name!r} in {saved.path}\n", style="bold")
    screen.show_table(HEADINGS, table_rows(method))
    facts = {
        "base": f"{base.get('model_class')} ({base.get('model_type')}), {_count(base.get('parameters'))} parameters",
        "fingerprint": f"structure {str(base.get('structure'))[:16]}, weights {str(base.get('weights'))[:16]}",
        "trained": f"{size:,} values in {len(saved.tensors)} tensors",
        "seed": str(description["seed"]),
        "written by": ", ".join(f"{name} {number}" for name, number in versions.items()),
        "checksums": f"verified (sha256 {description['sha256'][:16]})",
    }
    show_facts(facts)
    rows = [[name, " × ".join(map(str, one.shape)), _dtype(one), one.numel()] for name, one in saved.tensors.items()]
    screen.show_table(("tensor", "shape", "dtype", "values"), rows, numbers=("values",))


def show_facts(facts: Mapping[str, str]) -> None:
    """Write names and their values below each other, between two empty lines."""
    width = max(map(len, facts))
    screen.show("\n" + "\n".join(f"{name.ljust(width)}  {value}" for name, value in facts.items()) + "\n")


def _count(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
