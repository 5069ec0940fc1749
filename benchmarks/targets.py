"""What is to be reached, and where a result says whether it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from benchmarks import summary
from benchmarks.references import FLOOR, FULL
from benchmarks.results import Results
from benchmarks.rounds import Spread

Measured = Spread | float | None  # a number without a spread was counted, not timed; None: not measured


@dataclass(frozen=True)
class Target:
    """One line of the table: at most ``limit``, or at least where ``least``."""

    measure: str
    limit: float
    find: Callable[[Results], Measured]
    least: bool = False
    unit: str = ""
    remark: str = ""

    def reached(self, results: Results) -> bool | None:
        """Whether the median reaches it; None where it was not measured."""
        found = self.find(results)
        if found is None:
            return None
        value = found.middle if isinstance(found, Spread) else found
        return value >= self.limit if self.least else value <= self.limit


def _ratio(part: str, name: str, shape: str = "roberta") -> Callable[[Results], Measured]:
    return lambda results: results.ratio(part, name, shape=shape)


def _against(name: str, peer: str) -> Callable[[Results], Measured]:
    return lambda results: results.against("train", name, peer, shape="roberta")


def _saved(results: Results) -> Measured:
    """Bytes saved by LoRA of every linear module over those of full fine-tuning, both in bfloat16."""
    ours, full = (results.fact("memory", name, "saved", shape="llama-narrow") for name in ("lora_all", FULL))
    return ours / full if ours and full else None


def _tokens(shape: str) -> Callable[[Results], Measured]:
    """Tokens a second with a prefix over those without: the inverse of the ratio of seconds."""

    def find(results: Results) -> Measured:
        found = results.ratio("generate", "prefix_30", shape=shape)
        return Spread(1 / found.high, 1 / found.middle, 1 / found.low, found.count) if found else None

    return find


def _milliseconds(part: str, name: str) -> Callable[[Results], Measured]:
    def find(results: Results) -> Measured:
        found = results.seconds(part, name, changes={})  # of all layers
        return Spread(found.low * 1e3, found.middle * 1e3, found.high * 1e3, found.count) if found else None

    return find


def whole_graphs(results: Results) -> Measured:
    """The share of unipetl's methods, in training and in evaluation, that torch.compile takes as one graph."""
    records = [one for one in results.records("compile", library="unipetl") if "error" not in one]
    names = [set(summary.seconds(one, results.clock)) for one in records]
    eager = [name for one in names for name in one if "|" not in name]
    whole = [name for one in names for name in one if "|" in name]
    return len(whole) / len(eager) if eager else None


def gains(results: Results, kind: str, library: str = "unipetl") -> dict[str, Spread]:
    """Return each method's gain by compiling, eager seconds over compiled ones, over the reference's own gain."""
    record = results.record("compile", kind=kind, library=library)
    return summary.relative_gains(record, results.clock) if record else {}


def _least_gain(kind: str) -> Callable[[Results], Measured]:
    def find(results: Results) -> Measured:
        own = {"bare", FLOOR}
        found = [one for name, one in gains(results, kind).items() if name not in own]
        return min(found, key=lambda one: one.middle) if found else None

    return find


TARGETS: Iterable[Target] = (
    Target("eval forward / bare: LoRA q,v, unmerged", 1.06, _ratio("eval", "lora_qv")),
    Target("eval forward / bare: MAM 0.5 %", 1.10, _ratio("eval", "mam_16"), remark="prefix trained directly"),
    Target("eval forward / bare: MAM 0.5 %", 1.10, _ratio("eval", "mam_16_mlp"), remark="prefix from an MLP"),
    Target("eval forward / bare: LoRA q,v, folded", 1.01, _ratio("eval", "lora_qv_folded")),
    Target("eval forward / bare: parallel adapter, folded", 1.01, _ratio("eval", "parallel_16_folded")),
    Target(
        "eval forward / bare: MAM 0.5 %, folded where it folds",
        1.01,
        _ratio("eval", "mam_16_folded"),
        remark="its adapter folds; its prefix does not and is in the measured time",
    ),
    Target("train step / training floor: LoRA q,v", 1.05, _ratio("train", "lora_qv")),
    Target("train step / training floor: MAM 0.5 %", 1.10, _ratio("train", "mam_16"), remark="prefix trained directly"),
    Target("train step / training floor: MAM 0.5 %", 1.10, _ratio("train", "mam_16_mlp"), remark="prefix from an MLP"),
    Target("train step / training floor: Houlsby 16 + 16", 1.10, _ratio("train", "houlsby_16")),
    Target("train step / training floor: prefix 30", 1.10, _ratio("train", "prefix_30"), remark="trained directly"),
    Target("train step / training floor: prefix 30", 1.10, _ratio("train", "prefix_30_mlp"), remark="from an MLP"),
    Target("train step / PEFT's: LoRA q,v", 0.90, _against("lora_qv", "peft")),
    Target("train step / AdapterHub's: MAM, default sizes", 0.70, _against("mam_30_384", "adapterhub")),
    Target("bytes saved for backward, LoRA of every linear, bfloat16 / full fine-tuning", 0.65, _saved),
    Target("generate with a prefix, tokens/s / bare: encoder-decoder", 0.93, _tokens("bart"), least=True),
    Target("generate with a prefix, tokens/s / bare: decoder", 0.93, _tokens("llama"), least=True),
    Target("share of methods that compile as one graph, train and eval", 1.0, whole_graphs, least=True),
    Target("least gain by compiling / bare model's: eval", 1.0, _least_gain("compile-eval"), least=True),
    Target("least gain by compiling / floor's: train", 1.0, _least_gain("compile-train"), least=True),
    Target("attach MAM to 12 layers", 50, _milliseconds("attach", "mam_16"), unit="ms"),
    Target("attach MAM to 12 layers", 50, _milliseconds("attach", "mam_30_384"), unit="ms", remark="default sizes"),
    Target("import beyond torch and transformers", 150, _milliseconds("import", "import"), unit="ms"),
)
