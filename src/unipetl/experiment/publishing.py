"""A finished run, or a saved attachment, on the model hub."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unipetl.errors import StorageError
from unipetl.experiment.directory import RunDirectory, RunResult, result_if_sound
from unipetl.experiment.opening import Source, source_of
from unipetl.hub.card import CARD, Facts, Score
from unipetl.hub.fetching import FILES, is_hub_model
from unipetl.hub.uploading import upload
from unipetl.publishing import write_card
from unipetl.saved import NEXT_DESCRIPTION, read


@dataclass(frozen=True)
class Published:
    """Where the files are: the folder of a dry run, or the commit's address."""

    repository: str
    folder: Path | None
    address: str | None

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready data."""
        folder = None if self.folder is None else str(self.folder)
        return {"repository": self.repository, "folder": folder, "address": self.address}


def publish(
    path: str | Path,
    repository: str,
    *,
    private: bool = False,
    revision: str | None = None,
    token: str | bool | None = None,
    base_model: str | None = None,
    message: str | None = None,
    dry_run: str | Path | None = None,
) -> Published:
    """Push the attachment of a run, or a saved one, with a card of what it is and how it scored.

    No model is loaded, and the base's weights stay where they are.

    Args:
        path: a finished run, or a folder of ``unipetl.save``.
        repository: ``user/name``; made if there is none.
        private: whether a new repository is private.
        revision: a branch to push to, made if there is none.
        token: None is the one of `hf auth login`, or of the environment.
        base_model: the base's name on the hub, for the card; None is what the run's recipe says.
        message: of the commit.
        dry_run: a new folder for the very files that would be pushed; nothing is sent.

    Raises:
        RunError, StorageError: there is nothing to publish, or the folder of the dry run is taken.
        UploadError: the hub refuses, or cannot be reached.
    """
    source = source_of(path)
    facts = _facts(source, base_model)
    if dry_run is not None:
        return Published(repository, _ready(source, Path(dry_run), repository, facts), None)
    with tempfile.TemporaryDirectory() as place:
        folder = _ready(source, Path(place) / "attachment", repository, facts)
        address = upload(
            folder, repository, private=private, revision=revision, token=token,
            message=message or f"Upload an attachment of unipetl ({Path(path).name})",
        )  # fmt: skip
    return Published(repository, None, address)


def _ready(source: Source, folder: Path, repository: str, facts: Facts) -> Path:
    """Copy an attachment's files into a new folder, checked, and write the card beside them."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise StorageError(f"{str(folder)!r} exists; the files are written into a folder of their own.")
    saved = read(source.attachment)
    if (saved.path / NEXT_DESCRIPTION).is_file():
        raise StorageError(
            f"{str(saved.path)!r}: the last save there was interrupted. What is whole can be loaded still, but the "
            "files are not those of one save: load it and save it again, and publish that."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            shutil.copyfile(saved.path / name, folder / name)
    except OSError as error:
        raise StorageError(f"cannot write into {str(folder)!r}: {error.strerror or error}.") from error
    write_card(folder, repository, facts)
    assert (folder / CARD).is_file()
    return folder


def _facts(source: Source, base_model: str | None) -> Facts:
    recipe, result = source.recipe, source.result
    if recipe is None or result is None:
        return Facts(base=base_model)
    named = str(recipe.model) if recipe.model is not None else None
    base = base_model or (named if named is not None and _from_hub(named, source.path) else None)
    return Facts(
        base=base,
        notation=result.method,
        task=result.task,
        options=dict(recipe.options),
        own_model=recipe.model is None and base_model is None,
        metric=result.metric,
        greater_is_better=result.greater_is_better,
        paper_parameters=result.paper_parameters,
        scores=[Score(one.seed, _scores(one)) for one in (result, *_siblings(source, result))],
        steps=result.steps,
    )


def _from_hub(name: str, run: Path) -> bool:
    """Say whether the base that a recipe names came from the hub, and was no folder where the run was made."""
    if not is_hub_model(name):
        return False
    folder = RunDirectory(run).base_is_folder()
    if folder is not None:
        return not folder
    whole = run.resolve()  # of an older version, which did not note it: a relative folder mostly lies above the run
    return not any((place / name).exists() for place in (whole, *whole.parents))


def _scores(result: RunResult) -> dict[str, float]:
    """Return a run's metrics without those that are times, the task's own first."""
    kept = {name: value for name, value in result.metrics.items() if "time" not in name and "per_second" not in name}
    return {result.metric: result.score} | kept


def _siblings(source: Source, result: RunResult) -> list[RunResult]:
    """Return the results of the same recipe with other seeds, which lie beside the run."""
    found = [result_if_sound(one) for one in sorted(source.path.resolve().parent.glob("seed-*"))]
    return [one for one in found if one is not None and one.recipe == result.recipe and one.seed != result.seed]
