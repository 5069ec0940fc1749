"""The methods of the small study: every row of the paper's tables that one of its claims is about, at equal budgets.

A method's notation has ``?`` for the size that is solved for, so that all methods of a budget train about the same
number of parameters (by the true count, biases included). Prefixes are trained directly, without the paper's MLP: at
these sizes the MLP alone is several times the budget.

There are two budgets. The main one is that of the paper's final comparison on the kind of task: 6.7 % where a model
writes (table 6), 0.5 % where it classifies (table 2). The tiny one is for the claim on tiny budgets (table 4): 0.5 %
and 0.1 %. Table 4 calls its own "0.1 %"; by the paper's rule it is 0.54 % and 0.36 %.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from unipetl.errors import RunError, unknown

Kind = Literal["writing", "classification"]
Size = Literal["main", "tiny"]

#: A prompt makes every sequence longer: no more vectors than this.
LONGEST_PROMPT = 10


@dataclass(frozen=True)
class SmallMethod:
    """One method of the study.

    Args:
        label: its name in the plan and the tables.
        method: its notation, with ``?`` for the size that is solved for and ``{s}`` for the paper's scale.
        size: its budget; None for methods that have no size.
        rates: the learning rates that are tried, by kind of task; None for [RATES][].
        largest: no larger size.
        classifying: the notation where a model classifies, if it differs.
    """

    label: str
    method: str
    size: Size | None = "main"
    rates: Mapping[Kind, tuple[float, ...]] | None = None
    largest: int = 4096
    classifying: str | None = None

    def notation(self, kind: Kind) -> str:
        """Return the notation on a kind of task, its size still open."""
        text = self.classifying if kind == "classification" and self.classifying else self.method
        return text.format(s=SCALE[kind])

    def tried(self, kind: Kind) -> tuple[float, ...]:
        """Return the learning rates that are tried on a kind of task."""
        return (self.rates or RATES)[kind]


@dataclass(frozen=True)
class Shares:
    """The budgets of a kind of task, as shares of the model."""

    main: float
    tiny: float
    source: str

    def of(self, size: Size) -> float:
        """Return the share of a budget."""
        return self.main if size == "main" else self.tiny


#: The scale s of the paper: 4 on XSum and en-ro, 2 on GLUE.
SCALE: Mapping[Kind, int] = {"writing": 4, "classification": 2}
SHARES: Mapping[Kind, Shares] = {
    "writing": Shares(0.067, 0.005, "table 6; table 4 by the paper's rule"),
    "classification": Shares(0.005, 0.001, "table 2; table 4 as printed"),
}
#: Learning rates that are tried for methods that add parameters. They lie about a factor of three apart.
RATES: Mapping[Kind, tuple[float, ...]] = {"writing": (3e-3, 1e-2, 3e-2), "classification": (1e-3, 3e-3, 1e-2)}
#: For full fine-tuning, LoRA with a scale, and methods of few or of raw parameters, which need lower and higher ones.
FULL_RATES: Mapping[Kind, tuple[float, ...]] = {"writing": (3e-4, 1e-3, 3e-3), "classification": (1e-4, 3e-4)}
LOW_RATES: Mapping[Kind, tuple[float, ...]] = {"writing": (1e-3, 3e-3, 1e-2), "classification": (1e-3, 3e-3, 1e-2)}
HIGH_RATES: Mapping[Kind, tuple[float, ...]] = {"writing": (1e-2, 3e-2, 1e-1), "classification": (3e-3, 1e-2, 3e-2)}

FULL, BITFIT, PROMPT, PREFIX = "full fine-tuning", "BitFit", "prompt tuning", "prefix tuning"
SA_ATTENTION, SA_FFN = "sequential adapter (attn)", "sequential adapter (ffn)"
PA_ATTENTION, PA_FFN = "parallel adapter (attn)", "parallel adapter (ffn)"
LORA_ATTENTION, LORA_FFN, LORA_FFN_1 = "LoRA (attn)", "LoRA (ffn)", "LoRA (ffn), s=1"
SCALED_PA, LEARNED_PA = "scaled parallel adapter", "scaled parallel adapter, learned s"
PFEIFFER, PA_BOTH, PREFIX_LORA, MAM = "Pfeiffer adapter", "parallel adapter (attn + ffn)", "prefix + LoRA (ffn)", "MAM"
TINY_PREFIX, TINY_MH_PA = "tiny: prefix tuning", "tiny: multi-head parallel adapter"
TINY_PA_ATTENTION, TINY_PA_FFN = "tiny: parallel adapter (attn)", "tiny: parallel adapter (ffn)"

#: Mixtures give attention a little and the FFN the rest where a model writes (l=30 beside r=512 in the paper), and both
#: the same where it classifies (16 and 16).
METHODS: tuple[SmallMethod, ...] = (
    SmallMethod(FULL, "full", None, FULL_RATES),
    SmallMethod(BITFIT, "bitfit", None, {"writing": (3e-3, 1e-2, 3e-2), "classification": (3e-3, 1e-2)}),
    SmallMethod(PROMPT, "prompt_tuning(length=?)", "main", HIGH_RATES, LONGEST_PROMPT),
    SmallMethod(PREFIX, "prefix_tuning(length=?, mlp=none)", "main", HIGH_RATES),
    SmallMethod(SA_ATTENTION, "adapter(rank=?, at=attention)"),
    SmallMethod(SA_FFN, "adapter(rank=?)"),
    SmallMethod(PA_ATTENTION, "parallel_adapter(rank=?, at=attention)"),
    SmallMethod(PA_FFN, "parallel_adapter(rank=?)"),
    SmallMethod(LORA_ATTENTION, "lora(rank=?, scale={s})", rates=LOW_RATES),
    SmallMethod(LORA_FFN, "lora(rank=?, scale={s}, at=ffn)", rates=LOW_RATES),
    SmallMethod(LORA_FFN_1, "lora(rank=?, scale=1, at=ffn)"),
    SmallMethod(SCALED_PA, "scaled_parallel_adapter(rank=?, scale={s})"),
    SmallMethod(LEARNED_PA, "scaled_parallel_adapter(rank=?, scale=learned)"),
    SmallMethod(PFEIFFER, "pfeiffer(rank=?)"),
    SmallMethod(
        PA_BOTH,
        "parallel_adapter(rank=4, at=attention) + parallel_adapter(rank=?)",
        classifying="parallel_adapter(rank=?, at=both)",
    ),
    SmallMethod(
        PREFIX_LORA,
        "prefix_tuning(length=4, mlp=none) + lora(rank=?, scale={s}, at=ffn)",
        classifying="prefix_tuning(length=12, mlp=none) + lora(rank=?, scale={s}, at=ffn)",
    ),
    SmallMethod(
        MAM, "mam(length=4, rank=?, mlp=none, scale={s})", classifying="mam(length=?, rank=?, mlp=none, scale={s})"
    ),
    SmallMethod(TINY_PREFIX, "prefix_tuning(length=?, mlp=none)", "tiny", HIGH_RATES),
    SmallMethod(TINY_MH_PA, "multi_head_parallel_adapter(rank=?)", "tiny", HIGH_RATES),
    SmallMethod(TINY_PA_ATTENTION, "parallel_adapter(rank=?, at=attention)", "tiny", HIGH_RATES),
    SmallMethod(TINY_PA_FFN, "parallel_adapter(rank=?)", "tiny", HIGH_RATES),
)

#: The methods that stand for the rows of a table or figure.
ROWS: dict[str, tuple[str, ...]] = {
    "table2": (FULL, BITFIT, PREFIX, LORA_ATTENTION, SA_FFN, MAM),
    "table3": (PREFIX, SA_ATTENTION, SA_FFN, PA_ATTENTION, PA_FFN),
    "table4": (PREFIX, PA_ATTENTION, TINY_PREFIX, TINY_PA_FFN, TINY_PA_ATTENTION, TINY_MH_PA),
    "table5": (LORA_FFN, LORA_FFN_1, PA_FFN, SCALED_PA, LEARNED_PA),
    "table6": (FULL, BITFIT, PROMPT, PREFIX, PFEIFFER, LORA_FFN, PA_FFN, PA_BOTH, PREFIX_LORA, MAM),
    "table12": (PREFIX, LORA_ATTENTION, SA_ATTENTION, PA_ATTENTION, LORA_FFN, SA_FFN, PA_FFN),
    "figure2": (FULL, BITFIT, PREFIX, SA_FFN, LORA_ATTENTION, MAM),
    "figure4": (FULL, BITFIT, PREFIX, SA_FFN, LORA_ATTENTION),
    "figure5": (PREFIX, PA_ATTENTION, LORA_ATTENTION, PA_FFN, LORA_FFN),
}


def methods_of(place: str) -> tuple[SmallMethod, ...]:
    """Return the methods that stand for a table's or figure's rows; ``claims`` needs all.

    Raises:
        RunError: there is no such table or figure.
    """
    if place == "claims":
        return METHODS
    if place not in ROWS:
        raise RunError(unknown("table or figure", place, (*ROWS, "claims")))
    return tuple(one for one in METHODS if one.label in ROWS[place])
