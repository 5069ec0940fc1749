"""``unipetl inspect``: what a folder holds, checked, without a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unipetl.cli import screen
from unipetl.cli.methods import HEADINGS, table_rows
from unipetl.cli.options import Json, examples

if TYPE_CHECKING:
    from unipetl.saved import Saved

EXAMPLES = examples(
    ("a saved attachment: its method, its base, every tensor's checksum", "unipetl inspect adapter/"),
    ("a training run, or a comparison", "unipetl inspect runs/lora"),
    ("for a program", "unipetl inspect adapter/ --json"),
)
#: Files of other libraries, and what reads them.
FOREIGN = {
    "adapter_config.json": "an adapter of PEFT or AdapterHub",
    "config.json": "a whole model of transformers",
}


def command(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="An attachment, a run or a comparison.")],
    as_json: Json = False,
) -> None:
    """Say what a folder holds. Checksums are verified, no model is needed, no code in it can run."""
    from unipetl import saved

    folder = path.parent if path.name in (saved.DESCRIPTION, saved.TENSORS) and path.is_file() else path
    if any((folder / name).is_file() for name in (saved.DESCRIPTION, saved.NEXT_DESCRIPTION)):
        _attachment(saved.read(folder), as_json=as_json)
        return
    raise _nothing(folder)


def _nothing(path: Path) -> Exception:
    from unipetl.errors import StorageError

    expected = "expected a folder that unipetl.save, `unipetl train` or `unipetl compare` wrote"
    if not path.exists():
        return StorageError(f"{str(path)!r} does not exist; {expected}.")
    if not path.is_dir():
        return StorageError(f"{str(path)!r} is a file; {expected}.")
    for name, what in FOREIGN.items():
        if (path / name).is_file():
            return StorageError(f"{str(path)!r} holds {what} ({name}) and nothing of unipetl's; {expected}.")
    return StorageError(f"{str(path)!r} holds nothing of unipetl's; {expected}.")


def _attachment(saved: Saved, *, as_json: bool) -> None:
    description, method = saved.description, saved.method()
    sizes = {name: value.numel() for name, value in saved.tensors.items()}
    shapes = {name: list(value.shape) for name, value in saved.tensors.items()}
    dtypes = {name: str(value.dtype).removeprefix("torch.") for name, value in saved.tensors.items()}
    if as_json:
        fields: dict[str, Any] = {key: value for key, value in description.items() if key != "tensors"}
        tensors = [
            {"name": name, "shape": shapes[name], "dtype": dtypes[name], "size": size} for name, size in sizes.items()
        ]
        screen.show_json({"kind": "attachment", **fields, "verified": True, "tensors": tensors})
        return
    base, written = description["base"], description.get("versions")
    versions = written if isinstance(written, dict) else {}
    screen.show(f"Attachment {saved.name!r} in {saved.path}\n", style="bold")
    screen.show_table(HEADINGS, table_rows(method))
    facts = {
        "base": f"{base.get('model_class')} ({base.get('model_type')}), {_count(base.get('parameters'))} parameters",
        "fingerprint": f"structure {str(base.get('structure'))[:16]}, weights {str(base.get('weights'))[:16]}",
        "trained": f"{sum(sizes.values()):,} values in {len(sizes)} tensors",
        "seed": str(description["seed"]),
        "written by": ", ".join(f"{name} {number}" for name, number in versions.items()),
        "checksums": f"verified (sha256 {description['sha256'][:16]})",
    }
    show_facts(facts)
    rows = [[name, " × ".join(map(str, shapes[name])), dtypes[name], size] for name, size in sizes.items()]
    screen.show_table(("tensor", "shape", "dtype", "values"), rows, numbers=("values",))


def show_facts(facts: Mapping[str, str]) -> None:
    """Write names and their values below each other, between two empty lines."""
    width = max(map(len, facts))
    screen.show("\n" + "\n".join(f"{name.ljust(width)}  {value}" for name, value in facts.items()) + "\n")


def _count(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
