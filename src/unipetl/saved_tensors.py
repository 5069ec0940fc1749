"""Reading a file of tensors with what says whether it is intact: a checksum, finite values, what it means."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.torch
import torch
import xxhash
from torch import Tensor

from unipetl.errors import CorruptFileError
from unipetl.files import from_json, sha256, xxh128

#: Size up to which a file is read at one glance, in bytes.
_AT_ONCE = 64 << 20
#: What safetensors calls the types that attachments have.
_TYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True)
class Content:
    """A file of tensors.

    Attributes:
        tensors: by name, in the order of the names.
        xxh128, sha256: of the whole file, in hexadecimal; "" where it was not needed.
        meaning: what the file says its tensors mean; None where it says nothing.
        finite: whether all values are surely finite.
    """

    tensors: dict[str, Tensor]
    xxh128: str
    sha256: str
    meaning: str | None
    finite: bool

    def fits(self, description: Mapping[str, Any]) -> bool:
        """Say whether a description is this file's."""
        if self.sha256:
            return bool(description["sha256"] == self.sha256)
        return description.get("xxh128") == self.xxh128


def content(path: Path, quick: Collection[Any] = ()) -> Content:
    """Read a file of tensors, a small one at one glance.

    Args:
        path: the file.
        quick: the XXH128s with which it is content; SHA-256, which takes most of the time and so is computed beside
            the rest, is left out then.

    Raises:
        CorruptFileError: it is no safetensors file, or cannot be read.
    """
    try:
        if path.stat().st_size > _AT_ONCE:
            return _large(path, quick)
        data = np.fromfile(path, np.uint8)
        short = xxhash.xxh3_128_hexdigest(data.data) if quick else ""
        return (_seen(data, short) if short and short in quick else None) or _small(data)
    except (safetensors.SafetensorError, ValueError, OSError) as error:
        raise CorruptFileError(f"{str(path)!r} is no readable safetensors file: {error}") from error


def _large(path: Path, quick: Collection[Any]) -> Content:
    short = xxh128(path) if quick else ""
    with ThreadPoolExecutor(max_workers=1) as beside:
        digest = None if short and short in quick else beside.submit(sha256, path)
        tensors = safetensors.torch.load_file(path)
        with safetensors.safe_open(path, framework="pt") as file:
            said = file.metadata() or {}
        return _content(tensors, said, short, digest.result() if digest else "")


def _small(data: npt.NDArray[np.uint8]) -> Content:
    with ThreadPoolExecutor(max_workers=1) as beside:
        digest = beside.submit(lambda: hashlib.sha256(data.data).hexdigest())
        tensors = safetensors.torch.load(data.tobytes())
        said = _header(data)[1].get("__metadata__") or {}
        return _content(tensors, said, "", digest.result())


def _content(tensors: Mapping[str, Tensor], said: Mapping[str, Any], short: str, long: str) -> Content:
    return Content(dict(sorted(tensors.items())), short, long, said.get("meaning"), _finite(tensors.values()))


def _seen(data: npt.NDArray[np.uint8], short: str) -> Content | None:
    """Return what is in a file that is as we wrote it, without copying a value: a running model waits for it.

    The layout is safetensors' own: eight bytes with the header's length, the header, the values. None for a file that
    is laid out in any other way; safetensors itself says then what is wrong with it.
    """
    try:
        start, header = _header(data)
        said, values = header.pop("__metadata__", {}), torch.from_numpy(data[start:])
        if not _side_by_side(header.values(), len(values)):
            return None
        tensors = {
            key: values[slice(*one["data_offsets"])].view(_TYPES[one["dtype"]]).view(one["shape"])
            for key, one in sorted(header.items())
        }
        types = {one.dtype for one in tensors.values()}
        finite = _finite([values.view(*types)] if len(types) == 1 else tensors.values())
        return Content(tensors, short, "", said.get("meaning"), finite)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError):
        return None


def _side_by_side(described: Iterable[Mapping[str, Any]], size: int) -> bool:
    """Say whether tensors lie one after the other, with nothing between, before or after them."""
    end = 0
    for begin, after, shape in sorted((*one["data_offsets"], one["shape"]) for one in described):
        if begin != end or after < begin or min(shape, default=0) < 0:
            return False
        end = after
    return end == size


def _header(data: npt.NDArray[np.uint8]) -> tuple[int, dict[str, Any]]:
    """Return where a safetensors file's values begin, and its header."""
    start = 8 + int.from_bytes(data[:8].tobytes(), "little")
    return start, from_json(data[8:start].tobytes())


def _finite(tensors: Iterable[Tensor]) -> bool:
    """Say whether values are surely finite: NaN and infinity survive every sum."""
    sums = [one.sum(dtype=torch.float32) for one in tensors if one.is_floating_point()]
    return not sums or bool(torch.stack(sums).isfinite().all())
