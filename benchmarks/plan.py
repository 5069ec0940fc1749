"""What a run measures: kinds, shapes, and the methods of each."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks.libraries import NAMES
from benchmarks.methods import TITLES

ALL = tuple(TITLES)
FEW = ("lora_qv", "mam_16", "houlsby_16")


@dataclass(frozen=True)
class Step:
    """One kind of measurement on one shape.

    Attributes:
        changes: sizes of the shape that are others here.
        share: of the rounds that were asked for.
        part: what to call it on the command line.
    """

    part: str
    kind: str
    shape: str
    methods: tuple[str, ...] = ALL
    libraries: tuple[str, ...] = NAMES
    changes: dict[str, Any] = field(default_factory=dict)
    share: float = 1.0

    def only(self, methods: Collection[str]) -> Step:
        """Return the step with those of its methods."""
        return replace(self, methods=tuple(one for one in self.methods if one in methods))


def plan(device: str) -> Iterator[Step]:
    """Every step of a full run, what matters most first."""
    large = device != "cpu"
    encoder_decoder, decoder = ("bart-large", "llama-7b") if large else ("bart", "llama")
    for name in ("roberta", encoder_decoder, decoder, "minilm"):
        yield Step("eval", "eval", name)
        yield Step("train", "train", name)
    for name in (encoder_decoder, decoder):
        yield Step("generate", "generate", name)


PARTS = ("eval", "train", "generate")
