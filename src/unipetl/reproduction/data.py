"""Files of the paper's tasks in a folder: which of them is the training set, which are to judge on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from unipetl.errors import RunError

#: A split -> what its file may be called, without ending.
NAMES: dict[str, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("validation", "dev", "valid", "validation_matched", "dev_matched", "newsdev2016"),
    "test": ("test", "newstest2016"),
}
ENDINGS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")


def local_files(folder: str | Path, task: str, *, wanted: Sequence[str] = ("train",)) -> dict[str, str]:
    """Return split -> file of a task, as absolute paths.

    Args:
        folder: the files' folder, or one with a folder of the task's name in it.
        task: the task's name.
        wanted: the splits that must be there.

    Raises:
        RunError: there is no such folder, or one of ``wanted`` is not in it.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise RunError(f"data {str(folder)!r} {what}; a folder with the files of {task!r} is expected.")
    place = next((one for one in (root / task, root / task.replace("-", "_")) if one.is_dir()), root)
    found = {split: file for split, names in NAMES.items() if (file := _first(place, names)) is not None}
    for split in wanted:
        if split not in found:
            names = ", ".join(NAMES[split])
            there = ", ".join(sorted(one.name for one in place.iterdir())[:8]) or "nothing"
            raise RunError(
                f"data of {task!r}: {str(place)!r} has no {split} file; expected one of {names}, ending in one of "
                f"{', '.join(ENDINGS)}. Found: {there}."
            )
    return {split: str(file.resolve()) for split, file in found.items()}


def _first(place: Path, names: Sequence[str]) -> Path | None:
    files = (place / f"{name}{ending}" for name in names for ending in ENDINGS)
    return next((file for file in files if file.is_file()), None)
