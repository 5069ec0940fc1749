"""Save and load attachments: ``unipetl.safetensors`` with exactly the trained tensors, ``unipetl.json`` with the rest.

Writing is atomic, reading is strict. The description holds a checksum of the tensor file, so that two files
of different saves never pass for one; both are written in full before either is renamed.
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

import unipetl
from unipetl import axis
from unipetl.architectures import Architecture
from unipetl.attaching import Attachment, attach, detach
from unipetl.attaching.state import state_of, trained_tensors
from unipetl.errors import CorruptFileError, MismatchError, StorageError, unknown
from unipetl.files import flush, sha256, write_atomically
from unipetl.fingerprint import fingerprint
from unipetl.forms import FORMS, Form
from unipetl.method import Method

FORMAT = "unipetl-attachment"
FORMAT_VERSION = 1
DESCRIPTION = "unipetl.json"
TENSORS = "unipetl.safetensors"
#: The next description, complete on the disk before the tensor file is renamed; it serves if a crash comes between.
NEXT_DESCRIPTION = ".unipetl.json.next"


@dataclass(frozen=True)
class Saved:
    """A folder that has been read and checked: its description and its tensors."""

    path: Path
    description: dict[str, Any]
    tensors: dict[str, Tensor]

    @property
    def name(self) -> str:
        """The attachment's name when it was saved."""
        return str(self.description["name"])

    def method(self, forms: Sequence[type[Form]] = ()) -> Method:
        """Return the method; ``forms`` are third-party forms it may name."""
        data = dict(self.description["method"])
        known = (*FORMS, *forms)
        data["modifications"] = [
            {**one, "form": axis.read(one["form"], known, "functional form")} for one in data["modifications"]
        ]
        return Method.from_plain(data)


def save(model: nn.Module, path: str | Path, *, name: str | None = None) -> Path:
    """Write an attachment into the folder ``path``, atomically.

    Args:
        model: a model with attachments.
        path: a folder; made if absent. Other files in it are left alone.
        name: which attachment; None if there is only one.

    Returns:
        The folder.

    Raises:
        AttachError: there is no such attachment.
        StorageError: the file system refuses; what was there before is intact.
    """
    record = state_of(model).find(name)
    tensors = {key: value.detach().cpu().contiguous() for key, value in trained_tensors(model, record).items()}
    if any(value.is_meta for value in trained_tensors(model, record).values()):
        raise StorageError("the attachment is on the meta device: it has shapes and no values to save.")
    folder = Path(path)
    data = safetensors.torch.save(_unshared(tensors), metadata={"format": "pt"})
    description = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "name": record.name,
        "method": record.plan.method.plain(),
        "seed": record.seed,
        "base": {
            "model_class": record.plan.model_class,
            "model_type": record.plan.model_type,
            "parameters": record.plan.base_parameters,
            **fingerprint(model, record),
        },
        "trained_in_place": [key for key, _ in record.plan.trained],
        "parameters": sum(value.numel() for value in tensors.values()),
        "versions": versions(),
        "sha256": hashlib.sha256(data).hexdigest(),
        "tensors": {
            key: {"shape": list(value.shape), "dtype": _dtype(value), "sha256": _digest(value)}
            for key, value in sorted(tensors.items())
        },
    }
    text = json.dumps(description, indent=1, ensure_ascii=False) + "\n"
    following = folder / NEXT_DESCRIPTION
    write_atomically(following, lambda file: _write_bytes(file, text.encode()))
    write_atomically(folder / TENSORS, lambda file: _write_bytes(file, data))
    try:
        following.replace(folder / DESCRIPTION)
        flush(folder)
    except OSError as error:
        raise StorageError(f"cannot write {str(folder / DESCRIPTION)!r}: {error.strerror or error}.") from error
    return folder


def load(
    model: nn.Module,
    path: str | Path,
    *,
    name: str | None = None,
    allow_other_base: bool = False,
    allow_nonfinite: bool = False,
    architecture: Architecture | None = None,
    forms: Sequence[type[Form]] = (),
) -> Attachment:
    """Attach what the folder ``path`` holds to ``model``; all or nothing.

    Args:
        model: the base model the attachment was trained on.
        path: a folder written by [save][].
        name: a new name for it; None keeps the saved one.
        allow_other_base: accept a base whose weights are not those it was trained on.
        allow_nonfinite: accept NaN and infinite values.
        architecture: a table for a family that unipetl does not know.
        forms: third-party forms that the method names.

    Raises:
        CorruptFileError: a file is damaged or incomplete; the message names the tensor.
        MismatchError: it belongs to another base, model or newer format.
        PlanError: the method makes no sense on this model.
    """
    saved = read(path, allow_nonfinite=allow_nonfinite)
    trained = saved.description.get("trained_in_place", [])
    method = saved.method(forms)
    train_head = bool(trained) and not method.train
    chosen = saved.name if name is None else name
    attachment = attach(
        model,
        method,
        name=chosen,
        seed=int(saved.description["seed"]),
        train_head=train_head,
        architecture=architecture,
    )
    try:
        _fill(model, saved, chosen, allow_other_base=allow_other_base)
    except BaseException:
        detach(model, chosen)
        raise
    return attachment


def restore(
    model: nn.Module,
    path: str | Path,
    *,
    name: str | None = None,
    allow_other_base: bool = False,
    allow_nonfinite: bool = False,
    forms: Sequence[type[Form]] = (),
) -> None:
    """Copy the tensors of the folder ``path`` into an attachment that ``model`` already has.

    Raises:
        MismatchError: the attachment's method is not the saved one.
        CorruptFileError: a file is damaged or incomplete.
    """
    record = state_of(model).find(name)
    saved = read(path, allow_nonfinite=allow_nonfinite)
    if saved.method(forms).canonical() != record.plan.method.canonical():
        raise MismatchError(
            f"{str(saved.path)!r} holds another method than the attachment {record.name!r}:\n"
            f"saved:    {saved.method(forms).canonical()}\nattached: {record.plan.method.canonical()}"
        )
    _fill(model, saved, record.name, allow_other_base=allow_other_base)


def read(path: str | Path, *, allow_nonfinite: bool = False) -> Saved:
    """Read and check a folder written by [save][], without a model.

    Raises:
        StorageError: there is nothing of ours at ``path``.
        CorruptFileError, MismatchError: see [load][].
    """
    folder = Path(path)
    tensors_path = folder / TENSORS
    if not folder.is_dir():
        raise StorageError(f"{str(folder)!r} is no folder; expected one with {DESCRIPTION} and {TENSORS}.")
    candidates = [folder / DESCRIPTION, folder / NEXT_DESCRIPTION]
    present = [file for file in candidates if file.is_file()]
    if not present:
        raise StorageError(f"{str(folder)!r} holds no {DESCRIPTION}: nothing was saved there by unipetl.")
    if not tensors_path.is_file():
        raise CorruptFileError(f"{str(folder)!r} has a {DESCRIPTION} and no {TENSORS}: the save is incomplete.")
    found = sha256(tensors_path)
    descriptions = [_read_description(file) for file in present]
    description = next((one for one in descriptions if one["sha256"] == found), descriptions[0])
    try:
        tensors = safetensors.torch.load_file(tensors_path)
    except (safetensors.SafetensorError, ValueError, OSError) as error:
        raise CorruptFileError(f"{str(tensors_path)!r} is no readable safetensors file: {error}") from error
    _check_tensors(tensors, description, tensors_path, intact=description["sha256"] == found)
    if not allow_nonfinite:
        for key, value in tensors.items():
            if value.is_floating_point() and not bool(torch.isfinite(value).all()):
                raise CorruptFileError(
                    f"{str(tensors_path)!r}: tensor {key!r} has NaN or infinite values; the training diverged or the file "
                    "is damaged. Pass allow_nonfinite=True to load it all the same."
                )
    return Saved(folder, description, tensors)


def versions() -> dict[str, str]:
    """Return the versions of unipetl, torch, transformers and Python."""
    import transformers

    return {
        "unipetl": unipetl.__version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }


def _read_description(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise CorruptFileError(f"{str(path)!r} is no readable JSON: {error}") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise MismatchError(f"{str(path)!r} is not the description of an attachment (no format {FORMAT!r}).")
    version = data.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise MismatchError(
            f"{str(path)!r} has format version {version!r}; this unipetl {unipetl.__version__} reads up to "
            f"{FORMAT_VERSION}. Install a newer unipetl."
        )
    shape: dict[str, type] = {"name": str, "method": dict, "seed": int, "base": dict, "sha256": str, "tensors": dict}
    for key, kind in shape.items():
        if not isinstance(data.get(key), kind):
            raise CorruptFileError(f"{str(path)!r}: field {key!r} is missing or is no {kind.__name__}.")
    return data


def _check_tensors(tensors: Mapping[str, Tensor], description: dict[str, Any], path: Path, *, intact: bool) -> None:
    listed: dict[str, Any] = description["tensors"]
    _compare(set(tensors), set(listed), f"{str(path)!r}", f"its {DESCRIPTION}")
    for key, value in tensors.items():
        expected = listed[key]
        found = {"shape": list(value.shape), "dtype": _dtype(value)}
        for part in ("shape", "dtype"):
            if found[part] != expected.get(part):
                raise CorruptFileError(
                    f"{str(path)!r}: tensor {key!r} has {part} {found[part]}, its {DESCRIPTION} says {expected.get(part)}."
                )
        if not intact and _digest(value) != expected.get("sha256"):
            raise CorruptFileError(
                f"{str(path)!r}: the values of tensor {key!r} are not those that were saved (checksum)."
            )
    if not intact:
        raise CorruptFileError(
            f"{str(path)!r} is not the file that its {DESCRIPTION} describes (checksum of the file)."
        )


def _fill(model: nn.Module, saved: Saved, name: str, *, allow_other_base: bool) -> None:
    record = state_of(model).find(name)
    targets = trained_tensors(model, record)
    base: dict[str, Any] = saved.description["base"]
    _compare(
        set(saved.tensors),
        set(targets),
        f"{str(saved.path)!r}",
        f"this {record.plan.model_class} with the saved method",
    )
    for key, value in saved.tensors.items():
        if value.shape != targets[key].shape:
            raise MismatchError(
                f"{str(saved.path)!r}: tensor {key!r} has shape {tuple(value.shape)}; this {record.plan.model_class} needs "
                f"{tuple(targets[key].shape)}. It was saved for a {base.get('model_class')} of another size."
            )
    if not allow_other_base:
        _refuse_other_base(model, saved, name)
    with torch.no_grad():
        for key, value in saved.tensors.items():
            targets[key].copy_(value)


def _refuse_other_base(model: nn.Module, saved: Saved, name: str) -> None:
    record = state_of(model).find(name)
    base: dict[str, Any] = saved.description["base"]
    found = fingerprint(model, record)
    for part, meaning in (("structure", "parameters of other names or shapes"), ("weights", "other weights")):
        if found[part] != base.get(part):
            raise MismatchError(
                f"{str(saved.path)!r} was trained on another base: this {record.plan.model_class} has {meaning} than the "
                f"{base.get('model_class')} ({base.get('parameters'):,} parameters) it was saved from. Load that "
                "checkpoint (with its head, if the head was not trained), or pass allow_other_base=True."
            )


def _compare(found: set[str], expected: set[str], where: str, what: str) -> None:
    missing, extra = sorted(expected - found), sorted(found - expected)
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise CorruptFileError(f"{where}: tensor {missing[0]!r}{more} is missing, which {what} needs.")
    if extra:
        more = f" and {len(extra) - 1} more" if len(extra) > 1 else ""
        raise CorruptFileError(
            f"{where}: {unknown('tensor', extra[0], expected) if len(expected) < 12 else repr(extra[0])}{more}: {what} has no such tensor."
        )


def _unshared(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors that share memory (tied weights), which safetensors does not store."""
    seen: set[int] = set()
    result = {}
    for key, value in tensors.items():
        result[key] = value.clone() if value.numel() and value.data_ptr() in seen else value
        seen.add(value.data_ptr())
    return result


def _dtype(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _digest(value: Tensor) -> str:
    raw = value.detach().contiguous().reshape(-1).view(torch.uint8) if value.numel() else value.reshape(-1)
    return hashlib.sha256(raw.numpy().tobytes() if math.prod(value.shape) else b"").hexdigest()


def _write_bytes(path: Path, data: bytes) -> None:
    path.write_bytes(data)
