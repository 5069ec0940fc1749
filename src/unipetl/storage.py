"""Save and load attachments: ``unipetl.safetensors`` with exactly the trained tensors, ``unipetl.json`` with the rest.

Writing is atomic, reading is strict. The description holds a checksum of the tensor file, so that two files
of different saves never pass for one; both are written in full before either is renamed.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import xxhash
from torch import Tensor, nn

import unipetl
from unipetl.architectures import Architecture
from unipetl.attaching import Attachment, attach, detach
from unipetl.attaching.state import state_of, trained_tensors
from unipetl.errors import CorruptFileError, MismatchError, StorageError
from unipetl.files import flush, write_atomically
from unipetl.fingerprint import fingerprint
from unipetl.forms import Form
from unipetl.hub.fetching import fetch, is_repository
from unipetl.saved import (
    DESCRIPTION,
    FORMAT,
    FORMAT_VERSION,
    NEXT_DESCRIPTION,
    TENSORS,
    Saved,
    digest,
    dtype_name,
    meaning,
    read,
    same_names,
)


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
    description: dict[str, Any] = {
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
        "train_head": bool(record.plan.head) and set(record.plan.head) <= {key for key, _ in record.plan.trained},
        "parameters": sum(value.numel() for value in tensors.values()),
        "versions": versions(),
        "tensors": {
            key: {"shape": list(value.shape), "dtype": dtype_name(value), "sha256": digest(value)}
            for key, value in sorted(tensors.items())
        },
    }
    data = safetensors.torch.save(_unshared(tensors), metadata={"format": "pt", "meaning": meaning(description)})
    description["sha256"] = hashlib.sha256(data).hexdigest()
    description["xxh128"] = xxhash.xxh3_128_hexdigest(data)
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
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Attachment:
    """Attach what the folder ``path`` holds, or a repository of the hub, to ``model``; all or nothing.

    Args:
        model: the base model the attachment was trained on.
        path: a folder written by [save][], or ``user/name`` on the hub. A local folder of that name wins.
        name: a new name for it; None keeps the saved one.
        allow_other_base: accept a base whose weights are not those it was trained on.
        allow_nonfinite: accept NaN and infinite values.
        architecture: a table for a family that unipetl does not know.
        forms: third-party forms that the method names.
        revision: for the hub: a branch, tag or commit.
        token: for the hub; None is the one of `hf auth login`, or of the environment.
        cache_dir: for the hub; None is its own cache.
        local_files_only: for the hub: take what is in the cache, and never ask.

    Raises:
        DownloadError: the hub does not give it.
        CorruptFileError: a file is damaged or incomplete; the message names the tensor.
        MismatchError: it belongs to another base, model or newer format.
        PlanError: the method makes no sense on this model.
    """
    if is_repository(path):
        path = fetch(str(path), revision=revision, token=token, cache_dir=cache_dir, local_files_only=local_files_only)
    elif revision is not None:
        raise StorageError(f"{str(path)!r} is a local folder; revision={revision!r} is for the hub.")
    saved = read(path, allow_nonfinite=allow_nonfinite)
    return attach_saved(
        model, saved, name=name, allow_other_base=allow_other_base, architecture=architecture, forms=forms
    )


def attach_saved(
    model: nn.Module,
    saved: Saved,
    *,
    name: str | None = None,
    allow_other_base: bool = False,
    architecture: Architecture | None = None,
    forms: Sequence[type[Form]] = (),
) -> Attachment:
    """Attach a folder that has been read; see [load][], whose second half this is."""
    chosen = saved.name if name is None else name
    attachment = attach(
        model,
        saved.method(forms),
        name=chosen,
        seed=int(saved.description["seed"]),
        train_head=saved.description["train_head"],
        architecture=architecture,
    )
    try:
        _fill(model, saved, chosen, allow_other_base=allow_other_base)
    except BaseException:
        detach(model, chosen)
        raise
    return attachment


def reload(
    model: nn.Module,
    path: str | Path,
    *,
    name: str | None = None,
    allow_other_base: bool = False,
    allow_nonfinite: bool = False,
    forms: Sequence[type[Form]] = (),
) -> None:
    """Put the values of a saved attachment into one that ``model`` has already; all or nothing.

    The very tensors stay and get other values: no hook changes, nothing compiled is compiled again, and optimizers go
    on. Everything is read and checked before the first value is written, as [load][] does, but for one thing: a file
    whose XXH128 is the one in its description is not judged by its SHA-256 too. A forward pass that runs in another
    thread meanwhile may see some tensors before and some after the change, so a server reloads between two batches.

    Args:
        model: a model with attachments.
        path: a folder written by [save][] from an attachment of the same method.
        name: which attachment of ``model``; None if there is only one. It may be active or not.
        allow_other_base: accept values that were trained on other weights.
        allow_nonfinite: accept NaN and infinite values.
        forms: third-party forms that the method names.

    Raises:
        AttachError: there is no such attachment.
        MismatchError: the attachment's method is not the saved one, or the base is another.
        CorruptFileError: a file is damaged or incomplete.
    """
    saved = read(path, allow_nonfinite=allow_nonfinite, quick=True)
    reload_saved(model, saved, name=name, allow_other_base=allow_other_base, forms=forms)


def reload_saved(
    model: nn.Module,
    saved: Saved,
    *,
    name: str | None = None,
    allow_other_base: bool = False,
    forms: Sequence[type[Form]] = (),
) -> None:
    """Put the values of a folder that has been read into an attachment; see [reload][], whose second half this is."""
    record = state_of(model).find(name)
    if saved.description["method"] != record.plan.method.plain():  # written alike, it need not be read
        method = saved.method(forms).canonical()
        if method != record.plan.method.canonical():
            raise MismatchError(
                f"{str(saved.path)!r} holds another method than the attachment {record.name!r}:\n"
                f"saved:    {method}\nattached: {record.plan.method.canonical()}"
            )
    _fill(model, saved, record.name, allow_other_base=allow_other_base)


def versions() -> dict[str, str]:
    """Return the versions of unipetl, torch, transformers and Python."""
    import transformers

    return {
        "unipetl": unipetl.__version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }


def _fill(model: nn.Module, saved: Saved, name: str, *, allow_other_base: bool) -> None:
    record = state_of(model).find(name)
    targets = trained_tensors(model, record)
    base: dict[str, Any] = saved.description["base"]
    here = f"this {record.plan.model_class} with the saved method"
    try:
        same_names(set(saved.tensors), set(targets), f"{str(saved.path)!r}", here)
    except CorruptFileError as error:
        if base.get("model_type") in (None, record.plan.model_type):
            raise
        raise MismatchError(
            f"{str(saved.path)!r} was trained on another base: a {base.get('model_class')} ({base.get('model_type')}), "
            f"and this is a {record.plan.model_class} ({record.plan.model_type}), which has other places."
        ) from error
    for key, value in saved.tensors.items():
        needed = targets[key].shape
        if value.shape != needed:
            outputs = key.removeprefix("model/") in record.plan.head and value.shape[1:] == needed[1:]
            raise MismatchError(
                f"{str(saved.path)!r}: tensor {key!r} has shape {tuple(value.shape)}; this "
                f"{record.plan.model_class} needs {tuple(needed)}. "
                + (
                    f"Its head was trained for {value.shape[0]} outputs: load the base with "
                    f"num_labels={value.shape[0]}."
                    if outputs
                    else f"It was saved for a {base.get('model_class')} of another size."
                )
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
    half = any(one.dtype == torch.float16 for one in model.parameters())
    rounded = " (in float16 the same ones are not recognised)" if half else ""
    for part, words in (("structure", "parameters of other names or shapes"), ("weights", f"other weights{rounded}")):
        if found[part] != base.get(part):
            raise MismatchError(
                f"{str(saved.path)!r} was trained on another base: this {record.plan.model_class} has {words} "
                f"than the {base.get('model_class')} ({_counted(base.get('parameters'))} parameters) it was saved "
                "from. Load that checkpoint (with its head, if the head was not trained); "
                "unipetl.load(..., allow_other_base=True) takes it all the same."
            )


def _counted(number: Any) -> str:
    """Return a count that a file says, which may be anything."""
    return f"{number:,}" if isinstance(number, int) else "?"


def _unshared(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors that share memory (tied weights), which safetensors does not store."""
    seen: set[int] = set()
    result = {}
    for key, value in tensors.items():
        result[key] = value.clone() if value.numel() and value.data_ptr() in seen else value
        seen.add(value.data_ptr())
    return result


def _write_bytes(path: Path, data: bytes) -> None:
    path.write_bytes(data)
