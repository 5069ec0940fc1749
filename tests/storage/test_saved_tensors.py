"""Files of tensors: the quick way reads what the strict way reads, and leaves to it what it does not know."""

from __future__ import annotations

import json

import pytest
import safetensors.torch
import torch
import xxhash

from unipetl.errors import CorruptFileError
from unipetl.files import sha256, xxh128
from unipetl.saved_tensors import content

SOUND = {
    "one type": {"b": torch.randn(3, 4), "a": torch.randn(())},
    "several types": {"x": torch.randn(5).bfloat16(), "y": torch.randn(2, 1).double(), "z": torch.randn(3).half()},
    "no values": {"x": torch.zeros(0, 7)},
    "no tensors": {},
}


def written(folder, tensors, meaning="said"):
    path = folder / "some.safetensors"
    safetensors.torch.save_file(tensors, path, metadata=None if meaning is None else {"meaning": meaning})
    return path


@pytest.mark.parametrize("meaning", ["said", None])
@pytest.mark.parametrize("name", SOUND)
def test_both_ways_read_the_same(tmp_path, name, meaning):
    path = written(tmp_path, SOUND[name], meaning)
    strict, quick = content(path), content(path, [None, xxh128(path)])
    assert (strict.sha256, strict.xxh128) == (sha256(path), "")
    assert (quick.sha256, quick.xxh128) == ("", xxh128(path))
    assert list(strict.tensors) == list(quick.tensors) == sorted(SOUND[name])
    assert all(torch.equal(strict.tensors[key], value) for key, value in quick.tensors.items())
    assert [one.dtype for one in strict.tensors.values()] == [one.dtype for one in quick.tensors.values()]
    assert strict.meaning == quick.meaning == meaning
    assert strict.finite
    assert quick.finite


def test_another_checksum_is_judged_by_the_strict_one(tmp_path):
    path = written(tmp_path, SOUND["one type"])
    found = content(path, ["0" * 32])
    assert found.fits({"sha256": sha256(path)})
    assert not found.fits({"sha256": "0" * 64, "xxh128": xxh128(path)})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["one type", "several types"])
def test_neither_way_takes_nan_for_finite(tmp_path, name, value):
    tensors = {key: one.clone() for key, one in SOUND[name].items()}
    next(iter(tensors.values())).view(-1)[0] = value
    path = written(tmp_path, tensors)
    assert not content(path).finite
    assert not content(path, [xxh128(path)]).finite


def test_a_type_that_attachments_do_not_have_is_left_to_safetensors(tmp_path):
    path = written(tmp_path, {"x": torch.arange(4)})
    found = content(path, [xxh128(path)])
    assert found.sha256, "the strict way"
    assert found.tensors["x"].tolist() == [0, 1, 2, 3]


def header(data, change):
    size = int.from_bytes(data[:8], "little")
    said = json.loads(data[8 : 8 + size])
    change(said)
    text = json.dumps(said).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:20],
        lambda data: b"\xff" * len(data),
        lambda data: header(data, lambda said: said["a"].update(data_offsets=[0, 1 << 40])),
        lambda data: header(data, lambda said: said["a"].update(shape=[9])),
        lambda data: header(data, lambda said: said.update(a=None)),
        lambda data: header(data, lambda said: said["a"].pop("dtype")),
        lambda data: header(
            data, lambda said: (said["a"].update(data_offsets=[0, 4]), said["b"].update(data_offsets=[0, 48]))
        ),
        lambda data: header(data, lambda said: said["b"].update(shape=[-1, 4])),
        lambda data: data + bytes(4),
        lambda data: (100_000).to_bytes(8, "little") + b"[" * 100_000,
    ],
)
def test_a_damaged_file_is_one_error_even_if_its_checksum_is_right(tmp_path, damage):
    path = written(tmp_path, SOUND["one type"])
    path.write_bytes(damage(path.read_bytes()))
    for quick in ((), [xxhash.xxh3_128_hexdigest(path.read_bytes())]):
        with pytest.raises(CorruptFileError, match="is no readable safetensors file"):
            content(path, quick)
