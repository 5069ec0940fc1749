"""How long saving and loading take, and how large the files are."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.clock import Seconds, timed
from benchmarks.copies import share
from benchmarks.libraries import Library
from benchmarks.rounds import shuffled
from benchmarks.shapes import Shape
from benchmarks.variants import make, tried

SAVE, LOAD = " | save", " | load"


class Storage:
    """Each method is saved to a new folder and loaded into a new copy, in every round."""

    reference = ""

    def __init__(self, of: Shape, library: Library, methods: Sequence[str], device: str) -> None:
        self.library, self.device = library, device
        variants = make(of, library, methods, (), device)
        self.base, self.problems = variants.base, variants.problems
        self.models: dict[str, Any] = {}
        self.facts: dict[str, dict[str, Any]] = {}
        for method, model in variants.models.items():
            with tried(self.problems, method), tempfile.TemporaryDirectory() as folder:
                library.save(model, folder)
                size = sum(one.stat().st_size for one in Path(folder).rglob("*") if one.is_file())
                library.load(share(self.base), folder)
                self.models[method] = model
                self.facts[method] = {"bytes": size}

    def round(self, number: int) -> list[tuple[str, Seconds]]:
        found = []
        for method in shuffled(list(self.models), number):
            model, fresh = self.models[method], share(self.base)
            with tempfile.TemporaryDirectory() as folder:
                saving = timed(lambda m=model, f=folder: self.library.save(m, f), self.device)
                loading = timed(lambda m=fresh, f=folder: self.library.load(m, f), self.device)
            found += [(method + SAVE, saving), (method + LOAD, loading)]
        return found
