"""Small archives as a registry would offer them, and a pip that finds only them."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from unipetl.tasks.packages import Package

FILES = {"tiny/data/words.json": b'{"a": 1}', "tiny/data/LICENSE": b"MIT"}
KEPT = {"tiny/data/words.json": "words.json", "tiny/data/LICENSE": "LICENSE.txt"}


def wheel(folder: Path, files: Mapping[str, bytes] = FILES, name: str = "tiny") -> Path:
    """A wheel that pip accepts, with `files` in it."""
    info = f"{name}-1.0.dist-info"
    meta = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as zipped:
        for member, content in {**files, **meta}.items():
            zipped.writestr(zipfile.ZipInfo(member), content)
    return path


def tarball(path: Path, files: Mapping[str, bytes]) -> Path:
    """A .tar.gz with `files` in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for member, content in files.items():
            entry = tarfile.TarInfo(member)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def described(archive: Path, **changes: Any) -> Package:
    """The package that an archive made by `wheel` is, pinned to its hash."""
    usual = {
        "name": "tiny",
        "version": "1.0",
        "sha256": sha256(archive),
        "form": "wheel",
        "members": KEPT,
        "download": 1000,
        "kept": 100,
        "licence": "MIT",
        "holds": "a word",
    }
    return Package(**{**usual, **changes})


def tiny_speller(rows: int = 12) -> dict[str, np.ndarray]:
    """Arrays of a BART as the pronunciation task reads them: width 4, letters `a b c`, phonemes `O æ ɑ ɹ b`."""
    generator = np.random.default_rng(0)
    norm = {"layer_norm", "layernorm"}
    shapes: dict[str, tuple[int, ...]] = {"final_logits_bias": (1, rows), "model.shared.weight": (rows, 4)}
    for stack, attentions in {"encoder": ["self_attn"], "decoder": ["self_attn", "encoder_attn"]}.items():
        shapes[f"model.{stack}.embed_positions.weight"] = (66, 4)
        shapes[f"model.{stack}.layernorm_embedding.weight"] = (4,)
        layer = f"model.{stack}.layers.0"
        for attention in attentions:
            shapes |= {f"{layer}.{attention}.{p}_proj.weight": (4, 4) for p in ["k", "v", "q", "out"]}
            shapes[f"{layer}.{attention}_layer_norm.weight"] = (4,)
        shapes |= {f"{layer}.fc1.weight": (8, 4), f"{layer}.fc2.weight": (4, 8)}
        shapes[f"{layer}.final_layer_norm.weight"] = (4,)
    for name in [name for name in shapes if "layers.0" in name or "layernorm" in name]:
        shapes[name.replace(".weight", ".bias")] = shapes[name][:1]
    arrays = {name: generator.normal(size=shape).astype(np.float32) * 0.3 for name, shape in shapes.items()}
    for name in arrays:
        if any(part in name for part in norm) and name.endswith("weight"):
            arrays[name] += 1
    arrays["final_logits_bias"][:] = 0
    meta = {"grapheme_chars": "____abc", "phoneme_chars": "____Oæɑɹb"}
    arrays["meta_json"] = np.array(json.dumps(meta, ensure_ascii=False))
    return arrays
