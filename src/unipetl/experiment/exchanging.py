"""Runs and saved attachments as other libraries' folders, and the other way round."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from unipetl.attaching import Attachment
from unipetl.errors import InteropError, unknown
from unipetl.experiment.opening import open_attachments, source_of
from unipetl.files import refuse_taken
from unipetl.interop import adapterhub, peft
from unipetl.models import load_model
from unipetl.storage import save
from unipetl.tasks import Task

#: The formats, and the options that each has beside the folder.
FORMATS: dict[str, tuple[str, ...]] = {"adapterhub": ("ignore_dropout", "head"), "peft": ("shift_positions", "uniform")}


@dataclass(frozen=True)
class Exchanged:
    """What was written: the folder, and the attachment it says."""

    path: Path
    parameters: int
    method: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready data."""
        return {"path": str(self.path), "parameters": self.parameters, "method": self.method}


def import_folder(
    kind: str,
    folder: str | Path,
    out: str | Path,
    *,
    model: str,
    model_class: str | None = None,
    name: str = "default",
    **options: bool | None,
) -> Exchanged:
    """Read another library's folder, and save it as an attachment of ours.

    Args:
        kind: one of [FORMATS][unipetl.experiment.exchanging.FORMATS].
        folder: the other library's.
        out: a folder for ours, as ``unipetl.save`` writes it; it must not exist, or be empty.
        model: the base, as a folder or a hub name.
        model_class: its class, where the config does not name it.
        name: the attachment's name.
        options: of the format.

    Raises:
        InteropError: the folder means what unipetl does not have, or does not fit the model.
        StorageError: ``out`` is taken.
    """
    chosen = _options(kind, options)
    refuse_taken(Path(out), "an attachment")
    if not Path(folder).is_dir():
        raise InteropError(f"{str(folder)!r} is no folder.")
    base: nn.Module = load_model(model, model_class)
    attachment: Attachment
    if kind == "peft":
        attachment = peft.load(base, folder, name=name, **chosen)
    else:
        attachment = adapterhub.load(base, folder, name=name, **chosen)
    return Exchanged(save(base, out, name=name), attachment.plan.parameters, attachment.method.plain())


def export_run(
    path: str | Path,
    out: str | Path,
    *,
    to: str,
    model: str | None = None,
    model_class: str | None = None,
    task: Task | None = None,
    **options: bool | None,
) -> Exchanged:
    """Write a finished run's attachment, or a saved one, as another library's folder.

    Args:
        path: a run, or a folder of ``unipetl.save``.
        out: the folder for the other library; it must not exist, or be empty.
        to: one of [FORMATS][unipetl.experiment.exchanging.FORMATS].
        model: the base, where ``path`` is no run.
        model_class: its class, where the config does not name it.
        task: the run's task, where it is not one of unipetl's.
        options: of the format.

    Raises:
        InteropError: the format cannot say this method; the message says what, and why.
        StorageError: the folder is taken.
    """
    chosen = _options(to, options)
    target = Path(out)
    refuse_taken(target, "an export")
    opened = open_attachments([source_of(path)], model=model, model_class=model_class, task=task)
    if to == "peft":
        written = peft.export(opened.model, target, name=opened.names[0], base_model=opened.base, **chosen)
    else:
        written = adapterhub.export(
            opened.model, target, name=opened.names[0], called="default", base_model=opened.base, **chosen
        )
    return _exchanged(opened.model, opened.names[0], written)


def _exchanged(model: nn.Module, name: str, path: Path) -> Exchanged:
    attachment = Attachment(model, name)
    return Exchanged(path, attachment.plan.parameters, attachment.method.plain())


def _options(kind: str, given: dict[str, bool | None]) -> dict[str, Any]:
    if kind not in FORMATS:
        raise InteropError(unknown("format", kind, FORMATS))
    for name, value in given.items():
        if value is not None and name not in FORMATS[kind]:
            able = ", ".join(one for one, takes in FORMATS.items() if name in takes)
            raise InteropError(f"{name} is an option of {able or 'no format'}, and not of {kind}.")
    return {name: value for name, value in given.items() if value is not None}
