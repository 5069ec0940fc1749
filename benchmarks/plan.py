"""What a run measures: kinds, shapes, and the methods of each."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks.libraries import NAMES
from benchmarks.methods import TITLES

#: One of each entry of unipetl's catalogue is in these.
CATALOGUE = tuple(key for key in TITLES if not key.endswith("_folded") and key not in ("houlsby_48", "mam_30_384"))
RARE = ("adapter_16", "pfeiffer_16", "multi_head_16", "ungated_16")
ALL = tuple(key for key in TITLES if key not in RARE)
FEW = ("lora_qv", "houlsby_16", "mam_16", "mam_16_mlp")
GROWTH: tuple[dict[str, int], ...] = (
    {"layers": 2},
    {"layers": 4},
    {"layers": 8},
    {"layers": 2, "tokens": 32},
    {"layers": 2, "tokens": 512},
    {"layers": 2, "rows": 1},
    {"layers": 2, "rows": 32},
)


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
    yield Step("memory", "memory", "roberta")
    yield Step("memory", "memory", "llama-narrow", changes={"dtype": "bfloat16"})
    if large:
        yield Step("memory", "memory", "llama-7b")
    yield Step("attach", "attach", "roberta")
    yield Step("import", "import", "")
    yield Step("storage", "storage", "roberta", FEW)
    yield Step("switch", "switch", "roberta", FEW, share=0.5)
    yield Step("route", "route", "roberta", FEW, share=0.5)
    for changes in GROWTH:
        for kind in ("eval", "train"):
            yield Step("growth", kind, "roberta", FEW, changes=changes, share=0.5)
    for kind in ("compile-eval", "compile-train"):
        yield Step("compile", kind, "roberta", CATALOGUE, ("unipetl",), {"layers": 2}, share=0.5)
        yield Step("compile", kind, "roberta", ("lora_qv",), ("peft",), {"layers": 2}, share=0.5)


PARTS = ("eval", "train", "generate", "memory", "attach", "import", "storage", "switch", "route", "growth", "compile")
