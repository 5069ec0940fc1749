"""The folder that `adapters` writes: ``adapter_config.json``, ``adapter.safetensors``, and the same pair for a head.

Read strictly, written atomically. The library's default, ``pytorch_adapter.bin``, is a pickle and never opened here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from unipetl.errors import InteropError
from unipetl.files import from_json, write_atomically, write_text

CONFIG, TENSORS, PICKLE = "adapter_config.json", "adapter.safetensors", "pytorch_adapter.bin"
HEAD_CONFIG, HEAD_TENSORS, HEAD_PICKLE = "head_config.json", "model_head.safetensors", "pytorch_model_head.bin"
#: Module names of older files, and what they are called now.
_LEGACY = {
    "attention_text_task_adapters": "adapters",
    "attention_text_lang_adapters": "adapters",
    "layer_text_task_adapters": "adapters",
    "layer_text_lang_adapters": "adapters",
    "invertible_lang_adapters": "invertible_adapters",
}


@dataclass(frozen=True)
class Part:
    """A config and the tensors that belong to it, by their names in the file (the present ones)."""

    path: Path
    config: dict[str, Any]
    tensors: dict[str, Tensor]

    @property
    def name(self) -> str:
        """The adapter's or head's name in the file."""
        name = self.config.get("name")
        if not isinstance(name, str) or not name:
            raise InteropError(f"{str(self.path)!r} has no 'name'; the library writes one.")
        return name


@dataclass(frozen=True)
class Folder:
    """An adapter, and the head that was saved with it, if one was."""

    path: Path
    adapter: Part
    head: Part | None


def read(path: str | Path, *, head: bool) -> Folder:
    """Read a folder that `adapters` has written.

    Args:
        path: the folder.
        head: whether to read a head, if there is one.

    Raises:
        InteropError: it is none, its tensors are a pickle, or a file is damaged or not finite.
    """
    folder = Path(path)
    if not (folder / CONFIG).is_file():
        raise InteropError(f"{str(folder)!r} is no AdapterHub folder: it has no {CONFIG}.")
    adapter = _part(folder, CONFIG, TENSORS, PICKLE)
    if "config" not in adapter.config:
        other = " It is one of PEFT; use unipetl.interop.peft." if "peft_type" in adapter.config else ""
        raise InteropError(f"{str(folder / CONFIG)!r} is no AdapterHub config: it has no 'config'.{other}")
    with_head = head and (folder / HEAD_CONFIG).is_file()
    return Folder(folder, adapter, _part(folder, HEAD_CONFIG, HEAD_TENSORS, HEAD_PICKLE) if with_head else None)


def write(path: str | Path, adapter: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Path:
    """Write an adapter that the library reads; the config comes last, so that a folder with one is complete.

    Raises:
        StorageError: the file system refuses.
    """
    folder = Path(path)
    for name in (CONFIG, HEAD_CONFIG):  # a head of what was there before is none of this adapter's
        (folder / name).unlink(missing_ok=True)
    _write_tensors(folder / TENSORS, tensors)
    write_text(folder / CONFIG, _text(adapter))
    return folder


def write_head(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write a head beside an adapter.

    Raises:
        StorageError: the file system refuses.
    """
    _write_tensors(folder / HEAD_TENSORS, tensors)
    write_text(folder / HEAD_CONFIG, _text(config))


def _part(folder: Path, config: str, tensors: str, pickled: str) -> Part:
    try:
        settings = from_json((folder / config).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InteropError(f"{str(folder / config)!r} is no readable JSON: {error}.") from error
    if not isinstance(settings, dict):
        raise InteropError(f"{str(folder / config)!r} holds no settings.")
    if not (folder / tensors).is_file():
        raise InteropError(f"{str(folder)!r} has no {tensors}.{_conversion(folder, pickled)}")
    try:
        values = safetensors.torch.load_file(folder / tensors)
    except (safetensors.SafetensorError, ValueError, OSError) as error:
        raise InteropError(f"{str(folder / tensors)!r} is no readable safetensors file: {error}.") from error
    for name, value in values.items():
        if not bool(torch.isfinite(value).all()):
            raise InteropError(f"{str(folder / tensors)!r}: tensor {name!r} has NaN or infinite values.")
    return Part(folder / config, settings, {_present(name): value for name, value in values.items()})


def _conversion(folder: Path, pickled: str) -> str:
    """Return what to do about a folder that has a pickle alone."""
    if not (folder / pickled).is_file():
        return ""
    pairs = {TENSORS: PICKLE, HEAD_TENSORS: HEAD_PICKLE}
    found = [(old, new) for new, old in pairs.items() if (folder / old).is_file() and not (folder / new).is_file()]
    code = (
        "import torch, safetensors.torch as s; [s.save_file({k: v.clone() for k, v in torch.load(a, weights_only=True)"
        f".items()}}, b) for a, b in {found}]"
    )
    return (
        f" Its {pickled} is a pickle, which can run code, and unipetl opens none. If you trust it, convert it once, in "
        f'that folder, with any Python that has torch and safetensors:\n  python -c "{code}"'
    )


def _present(name: str) -> str:
    for old, new in _LEGACY.items():
        name = name.replace(old, new)
    return name


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    ready = {name: value.detach().cpu().contiguous().clone() for name, value in sorted(tensors.items())}
    data = safetensors.torch.save(ready, metadata={"format": "pt"})
    write_atomically(path, lambda temporary: _write(temporary, data))


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _text(settings: Mapping[str, Any]) -> str:
    return json.dumps(dict(settings), indent=2, sort_keys=True) + "\n"
