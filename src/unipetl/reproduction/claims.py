"""The paper's claims, as data: which methods are compared, and what is expected of their difference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from unipetl.reproduction.small_methods import (
    BITFIT,
    FULL,
    LEARNED_PA,
    LORA_ATTENTION,
    LORA_FFN,
    LORA_FFN_1,
    MAM,
    PA_ATTENTION,
    PA_BOTH,
    PA_FFN,
    PFEIFFER,
    PREFIX,
    PREFIX_LORA,
    PROMPT,
    SA_ATTENTION,
    SA_FFN,
    SCALED_PA,
    TINY_MH_PA,
    TINY_PA_ATTENTION,
    TINY_PA_FFN,
    TINY_PREFIX,
    Kind,
)

Rule = Literal["average", "every"]
Pair = tuple[str, str]  # the method that the paper found better, and the other
BOTH: tuple[Kind, ...] = ("writing", "classification")


@dataclass(frozen=True)
class Claim:
    """One claim of the paper and how it is tested.

    Args:
        key: its name.
        text: what the paper says.
        source: where.
        printed: the paper's own numbers.
        pairs: methods that are compared; a difference is the first one's score minus the second's.
        rule: ``average`` judges the mean difference over the pairs; ``every`` needs each pair to agree.
        margin: how far the first may be below the second (in points of the metric) and still be called equal; 0 asks
            for a difference above zero.
        kinds: the kinds of tasks that the claim is about.
        caveat: what the small study cannot show.
    """

    key: str
    text: str
    source: str
    printed: str
    pairs: tuple[Pair, ...]
    rule: Rule = "average"
    margin: float = 0.0
    kinds: tuple[Kind, ...] = BOTH
    caveat: str = ""


#: Two methods within so many points of the metric count as equal where the paper says that one matches the other.
EQUAL = 1.0
_REST = (PROMPT, BITFIT, PREFIX, PFEIFFER, LORA_FFN, PA_FFN, PA_BOTH, PREFIX_LORA)

CLAIMS: tuple[Claim, ...] = (
    Claim(
        "parallel",
        "Parallel insertion is better than sequential.",
        "section 4.3, table 3",
        "XSum ROUGE-2 +1.01 (attention) and +0.68 (FFN; the text says 1.7), en-ro BLEU +0.3 and +0.8, at r=200",
        ((PA_ATTENTION, SA_ATTENTION), (PA_FFN, SA_FFN)),
    ),
    Claim(
        "ffn",
        "Changing the FFN is better than changing attention, at the larger budget.",
        "section 4.4, figure 5, table 12",
        "XSum ROUGE-2 +0.15 (parallel adapters, r=512, the FFN's with fewer parameters) and +1.02 (LoRA)",
        ((PA_FFN, PA_ATTENTION), (LORA_FFN, LORA_ATTENTION)),
    ),
    Claim(
        "tiny-heads",
        "At tiny budgets changing the heads of attention is better than changing the FFN.",
        "section 4.4, table 4",
        "en-ro BLEU +2.2 (prefix) and +2.3 (multi-head parallel adapter) over the parallel adapter at the FFN",
        ((TINY_PREFIX, TINY_PA_FFN), (TINY_MH_PA, TINY_PA_FFN)),
        caveat="pronounce's model has a single head.",
    ),
    Claim(
        "tiny-multi-head",
        "At tiny budgets several heads are better than one: multi-head methods beat the parallel adapter at attention.",
        "section 4.4, table 4",
        "en-ro BLEU +1.5 (prefix) and +1.6 (multi-head parallel adapter)",
        ((TINY_PREFIX, TINY_PA_ATTENTION), (TINY_MH_PA, TINY_PA_ATTENTION)),
        caveat="pronounce's model has a single head, so that the two differ there in their place and query alone.",
    ),
    Claim(
        "scaled",
        "Scaled addition is better than plain addition.",
        "section 4.5, table 5",
        "XSum ROUGE-2 +0.56 (parallel adapter, s=4) and +0.48 (LoRA, s=4 against 1)",
        ((SCALED_PA, PA_FFN), (LORA_FFN, LORA_FFN_1)),
    ),
    Claim(
        "learned-scale",
        "A scale that is tuned by hand is better than a learned one.",
        "section 4.5, table 5",
        "XSum ROUGE-2 +0.23",
        ((SCALED_PA, LEARNED_PA),),
    ),
    Claim(
        "scaled-adapter-lora",
        "A scaled parallel adapter is better than LoRA at the FFN.",
        "section 4.5, table 5",
        "XSum ROUGE-2 +0.23",
        ((SCALED_PA, LORA_FFN),),
    ),
    Claim(
        "mam-rest",
        "MAM is better than every other parameter-efficient method.",
        "section 4.6, table 6",
        "XSum ROUGE-2 +0.19 and en-ro BLEU +0.3 over the best of the others",
        tuple((MAM, other) for other in _REST),
        rule="every",
        kinds=("writing",),
    ),
    Claim(
        "mam-full",
        "MAM matches full fine-tuning.",
        "section 4.6, table 6",
        "XSum ROUGE-2 -0.04, en-ro BLEU +0.2",
        ((MAM, FULL),),
        margin=EQUAL,
    ),
    Claim(
        "gap",
        "The methods of before stay behind full fine-tuning where a model writes.",
        "section 4.2, figures 2 and 4",
        "XSum ROUGE-2 +4.62 (BitFit), +1.48 (prefix), +0.96 (adapter), +1.44 (LoRA)",
        ((FULL, BITFIT), (FULL, PREFIX), (FULL, SA_FFN), (FULL, LORA_ATTENTION)),
        rule="every",
        kinds=("writing",),
    ),
    Claim(
        "no-gap",
        "The methods of before match full fine-tuning where a model classifies.",
        "section 4.2, table 2",
        "SST-2 accuracy -0.6 (prefix), -0.4 (LoRA), -0.4 (adapter); MNLI -1.3, -0.4, -0.4",
        ((PREFIX, FULL), (LORA_ATTENTION, FULL), (SA_FFN, FULL)),
        rule="every",
        margin=EQUAL,
        kinds=("classification",),
    ),
)
