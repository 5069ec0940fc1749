"""The folder that Hugging Face PEFT writes: ``adapter_config.json`` and ``adapter_model.safetensors``.

Read strictly, written atomically. The tensor file's header is what PEFT writes, ``{"format": "pt"}``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from unipetl.errors import InteropError, StorageError
from unipetl.files import from_json, write_atomically, write_text

CONFIG = "adapter_config.json"
TENSORS = "adapter_model.safetensors"


@dataclass(frozen=True)
class Folder:
    """A PEFT folder: its config, and its tensors by their names in the file."""

    path: Path
    config: dict[str, Any]
    tensors: dict[str, Tensor]

    def setting(self, name: str, kind: type | tuple[type, ...], default: Any) -> Any:
        """Return one value of the config.

        Raises:
            InteropError: it has another type.
        """
        value = self.config.get(name)
        value = default if value is None else value
        if value is not None and not isinstance(value, kind):
            raise InteropError(f"{str(self.path / CONFIG)!r}: {name!r} is {value!r}, which PEFT does not write there.")
        return value

    def refuse_settings(self, refused: Mapping[str, str]) -> None:
        """Refuse settings that mean a function of another kind.

        Args:
            refused: name of a setting -> what it means; any value that is not empty is refused.

        Raises:
            InteropError: one of them is set.
        """
        for name, meaning in refused.items():
            if self.config.get(name):
                raise InteropError(
                    f"{str(self.path / CONFIG)!r}: {name}={self.config[name]!r} means {meaning}, which unipetl does "
                    "not have."
                )


def read(path: str | Path) -> Folder:
    """Read a folder that PEFT has written.

    Raises:
        InteropError: it is none, its tensors are a pickle, or a file is damaged or not finite.
    """
    folder = Path(path)
    if not (folder / CONFIG).is_file():
        raise InteropError(f"{str(folder)!r} is no PEFT folder: it has no {CONFIG}.")
    try:
        config = from_json((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InteropError(f"{str(folder / CONFIG)!r} is no readable JSON: {error}.") from error
    if not isinstance(config, dict):
        raise InteropError(f"{str(folder / CONFIG)!r} holds no settings.")
    _check_names(config, folder / CONFIG)
    if not (folder / TENSORS).is_file():
        pickled = (folder / "adapter_model.bin").is_file()
        hint = (
            " Its adapter_model.bin is a pickle, which can run code; let PEFT save it as safetensors."
            if pickled
            else ""
        )
        raise InteropError(f"{str(folder)!r} has no {TENSORS}.{hint}")
    try:
        tensors = safetensors.torch.load_file(folder / TENSORS)
    except (safetensors.SafetensorError, ValueError, OSError) as error:
        raise InteropError(f"{str(folder / TENSORS)!r} is no readable safetensors file: {error}.") from error
    for name, value in tensors.items():
        if not bool(torch.isfinite(value).all()):
            raise InteropError(f"{str(folder / TENSORS)!r}: tensor {name!r} has NaN or infinite values.")
    return Folder(folder, config, tensors)


def _check_names(config: Mapping[str, Any], path: Path) -> None:
    """Refuse settings that should name modules or layers and do not."""
    expressions: list[Any] = []
    for name in ("target_modules", "exclude_modules"):
        value = config.get(name)
        if value is not None and not isinstance(value, str) and not _all_of(value, str):
            raise InteropError(f"{str(path)!r}: {name!r} is {value!r}; expected names of modules, or an expression.")
        expressions += [value] if isinstance(value, str) else []
    layers = config.get("layers_to_transform")
    if layers is not None and type(layers) is not int and not _all_of(layers, int):
        raise InteropError(f"{str(path)!r}: 'layers_to_transform' is {layers!r}; expected numbers of layers.")
    for name in ("rank_pattern", "alpha_pattern"):
        value = config.get(name) or {}
        if not isinstance(value, dict) or not _all_of(list(value.values()), int, float):
            raise InteropError(f"{str(path)!r}: {name!r} is {value!r}; expected a number for each name of a module.")
        expressions += value
    for expression in expressions:
        try:
            re.compile(expression)
        except re.error as error:
            raise InteropError(f"{str(path)!r}: {expression!r} is no regular expression: {error}.") from None


def _all_of(value: Any, *kinds: type) -> bool:
    return isinstance(value, list) and all(type(one) in kinds for one in value)


def write(path: str | Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Path:
    """Write a folder that PEFT reads; the config comes last, so that a folder with one is complete.

    Raises:
        StorageError: the file system refuses.
    """
    folder = Path(path)
    ready = {name: value.detach().cpu().contiguous().clone() for name, value in sorted(tensors.items())}
    data = safetensors.torch.save(ready, metadata={"format": "pt"})
    (folder / CONFIG).unlink(missing_ok=True)
    write_atomically(folder / TENSORS, lambda temporary: _write(temporary, data))
    write_text(folder / CONFIG, json.dumps(dict(sorted(config.items())), indent=2) + "\n")
    return folder


def _write(path: Path, data: bytes) -> None:
    if path.write_bytes(data) != len(data):
        raise StorageError(f"{str(path)!r} was not written whole.")
