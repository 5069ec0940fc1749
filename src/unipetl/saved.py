"""Reading a saved attachment, strictly and without a model."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import unipetl
from unipetl import axis
from unipetl.errors import CorruptFileError, MismatchError, StorageError
from unipetl.files import from_json
from unipetl.forms import FORMS, Form
from unipetl.method import Method
from unipetl.saved_tensors import content

FORMAT = "unipetl-attachment"
FORMAT_VERSION = 1
DESCRIPTION = "unipetl.json"
TENSORS = "unipetl.safetensors"
#: How often a folder is read that changes while it is read.
_ATTEMPTS = 4
#: The next description, complete on the disk before the tensor file is renamed; it serves if a crash comes between.
NEXT_DESCRIPTION = ".unipetl.json.next"


def holds_attachment(folder: Path) -> bool:
    """Say whether [save][] has written into a folder, be it that it was interrupted."""
    return any((folder / name).is_file() for name in (DESCRIPTION, NEXT_DESCRIPTION))


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


def read(path: str | Path, *, allow_nonfinite: bool = False, quick: bool = False) -> Saved:
    """Read and check a folder written by [save][], without a model.

    A folder that is being written meanwhile is read as it was or as it will be.

    Args:
        path: the folder.
        allow_nonfinite: accept NaN and infinite values.
        quick: where the XXH128 of the file of tensors is the one its description says, be content with that: it takes
            a hundredth of the time of SHA-256 and misses one accident in 2^128, though somebody who wants to can make
            two files that share it. Any other file is judged by its SHA-256.

    Raises:
        StorageError: there is nothing of ours at ``path``.
        CorruptFileError, MismatchError: see [load][].
    """
    folder = Path(path)
    tensors_path = folder / TENSORS
    if not folder.is_dir():
        raise StorageError(f"{str(folder)!r} is no folder; expected one with {DESCRIPTION} and {TENSORS}.")
    written = _written(folder)
    for _ in range(_ATTEMPTS):
        if not written:
            raise StorageError(f"{str(folder)!r} holds no {DESCRIPTION}: nothing was saved there by unipetl.")
        if not tensors_path.is_file():
            raise CorruptFileError(f"{str(folder)!r} has a {DESCRIPTION} and no {TENSORS}: the save is incomplete.")
        descriptions = [_read_description(file, text) for file, text in written.items()]
        found = content(tensors_path, [one.get("xxh128") for one in descriptions] if quick else ())
        description = next((one for one in descriptions if found.fits(one)), None)
        before, written = written, _written(folder)
        if description is not None or written == before:
            break  # else somebody saves just now
    intact = description is not None
    description = description or descriptions[0]
    _check_meaning(description, found.meaning, tensors_path)
    _check_tensors(found.tensors, description, tensors_path, intact=intact)
    if not allow_nonfinite and not found.finite:
        for key, value in found.tensors.items():
            if value.is_floating_point() and not bool(torch.isfinite(value).all()):
                raise CorruptFileError(
                    f"{str(tensors_path)!r}: tensor {key!r} has NaN or infinite values; the training diverged or "
                    "the file is damaged. unipetl.load(..., allow_nonfinite=True) takes it all the same."
                )
    return Saved(folder, description, found.tensors)


def _written(folder: Path) -> dict[Path, bytes]:
    """Return the descriptions in a folder, as they are."""
    found = {}
    for name in (DESCRIPTION, NEXT_DESCRIPTION):
        try:
            found[folder / name] = (folder / name).read_bytes()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise CorruptFileError(f"{str(folder / name)!r} cannot be read: {error.strerror or error}.") from error
    return found


def meaning(description: Mapping[str, Any]) -> str:
    """Return the SHA-256 of what a description says the tensors mean: method, seed and head."""
    said = {key: description[key] for key in ("method", "seed", "train_head")}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _check_meaning(description: Mapping[str, Any], written: str | None, tensors_path: Path) -> None:
    if written is not None and written != meaning(description):
        raise CorruptFileError(
            f"{str(tensors_path.parent / DESCRIPTION)!r}: its method, seed or head is not the one its tensors were "
            "saved with (checksum)."
        )


def _read_description(path: Path, text: bytes) -> dict[str, Any]:
    try:
        data = from_json(text.decode())
    except ValueError as error:
        raise CorruptFileError(f"{str(path)!r} is no readable JSON: {error}") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise MismatchError(f"{str(path)!r} is not the description of an attachment (no format {FORMAT!r}).")
    version = data.get("format_version")
    if type(version) is not int or not 1 <= version <= FORMAT_VERSION:
        raise MismatchError(
            f"{str(path)!r} has format version {version!r}; this unipetl {unipetl.__version__} reads up to "
            f"{FORMAT_VERSION}. Install a newer unipetl."
        )
    shape: dict[str, type] = {
        "name": str,
        "method": dict,
        "seed": int,
        "train_head": bool,
        "base": dict,
        "sha256": str,
        "tensors": dict,
    }
    for key, kind in shape.items():
        if not isinstance(data.get(key), kind):
            raise CorruptFileError(f"{str(path)!r}: field {key!r} is missing or is no {kind.__name__}.")
    changes = data["method"].get("modifications")
    if not isinstance(changes, list) or not all(isinstance(one, dict) and "form" in one for one in changes):
        raise CorruptFileError(f"{str(path)!r}: field 'method' describes no method.")
    if not all(isinstance(one, dict) for one in data["tensors"].values()):
        raise CorruptFileError(f"{str(path)!r}: field 'tensors' does not describe every tensor.")
    return data


def _check_tensors(tensors: Mapping[str, Tensor], description: dict[str, Any], path: Path, *, intact: bool) -> None:
    listed: dict[str, Any] = description["tensors"]
    same_names(set(tensors), set(listed), f"{str(path)!r}", f"its {DESCRIPTION}")
    for key, value in tensors.items():
        expected = listed[key]
        found = {"shape": list(value.shape), "dtype": dtype_name(value)}
        for part in ("shape", "dtype"):
            if found[part] != expected.get(part):
                raise CorruptFileError(
                    f"{str(path)!r}: tensor {key!r} has {part} {found[part]}, "
                    f"its {DESCRIPTION} says {expected.get(part)}."
                )
        if not intact and digest(value) != expected.get("sha256"):
            raise CorruptFileError(
                f"{str(path)!r}: the values of tensor {key!r} are not those that were saved (checksum)."
            )
    if not intact:
        raise CorruptFileError(
            f"{str(path)!r} is not the file that its {DESCRIPTION} describes (checksum of the file)."
        )


def same_names(found: set[str], expected: set[str], where: str, what: str) -> None:
    """Raise unless two sets of tensor names are equal.

    Raises:
        CorruptFileError: with the first missing or extra name.
    """
    missing, extra = sorted(expected - found), sorted(found - expected)
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise CorruptFileError(f"{where}: tensor {missing[0]!r}{more} is missing, which {what} needs.")
    if extra:
        more = f" and {len(extra) - 1} more" if len(extra) > 1 else ""
        raise CorruptFileError(f"{where}: tensor {extra[0]!r}{more} belongs nowhere in {what}.")


def dtype_name(value: Tensor) -> str:
    """Return the name of a tensor's dtype, such as ``float32``."""
    return str(value.dtype).removeprefix("torch.")


def digest(value: Tensor) -> str:
    """Return the SHA-256 of a tensor's values."""
    raw = value.detach().contiguous().reshape(-1).view(torch.uint8) if value.numel() else value.reshape(-1)
    return hashlib.sha256(raw.numpy().tobytes() if math.prod(value.shape) else b"").hexdigest()
