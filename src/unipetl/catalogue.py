"""The literature's methods, as data.

Every entry is a function with named settings whose defaults cite He et al. 2022 (https://arxiv.org/abs/2110.04366,
"the paper") and, where they differ, its released code. ``catalogue.ENTRIES`` lists them; a method nobody
has named is a [Method][unipetl.method.Method] written out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from unipetl.composition import Add, Composition, Gate, Multiply
from unipetl.errors import MethodError, NotationError, unknown
from unipetl.forms import Bottleneck, Form, HeadAttention, LowRank, Prompt, Rescale
from unipetl.forms.bottleneck import Activation
from unipetl.forms.form import Init, LayerNormAt
from unipetl.insertion import Insertion, Parallel, Sequential
from unipetl.method import Method, Modification
from unipetl.representation import PROJECTIONS, Representation

Scale = float | Literal["learned"]
Variant = Literal["paper", "official"]
LORA_PLACES: dict[str, tuple[str, ...]] = {
    "attention": ("attention.query", "attention.value"),
    "ffn": ("ffn.up", "ffn.down"),
    "both": ("attention.query", "attention.value", "ffn.up", "ffn.down"),
    "all": PROJECTIONS,
}


@dataclass(frozen=True)
class Entry:
    """One named method: the function that builds it, its title and where it comes from."""

    name: str
    title: str
    build: Callable[..., Method]
    paper: str
    source: str


def _at(
    place: str, form: Form, insertion: Insertion, composition: Composition, *, optional: bool = False
) -> Modification:
    representation = Representation(name=place, optional=optional)
    return Modification(representation=representation, form=form, insertion=insertion, composition=composition)


def _places(at: str | Sequence[str], allowed: Sequence[str]) -> tuple[str, ...]:
    chosen = tuple(allowed) if at == "both" else (at,) if isinstance(at, str) else tuple(at)
    if not chosen:
        raise MethodError(f"at=[] names no place; choose from: {', '.join(allowed)}, both.")
    for place in chosen:
        if place not in allowed:
            raise MethodError(unknown("place 'at'", place, (*allowed, "both")))
    return chosen


def full() -> Method:
    """Full fine-tuning: every parameter is trained (paper, tables 2 and 6)."""
    return Method(train=("all",))


def head_only() -> Method:
    """Train the task head alone: the lower baseline."""
    return Method(train=("head",))


def bitfit() -> Method:
    """BitFit: train the pretrained biases (paper, section 2.2 and table 6; Ben Zaken et al. 2022)."""
    return Method(train=("bias",))


def prompt_tuning(*, length: int = 200) -> Method:
    """Prompt tuning: l vectors in front of the encoder's (or the decoder-only model's) tokens.

    ``length=200`` is the released code's for translation; it used 300 for summarisation (table 6 prints none).
    """
    return Method(modifications=(_at("input", Prompt(length=length), Parallel(), Gate()),))


def prefix_tuning(*, length: int = 200, mlp: int | None = 800, dropout: float = 0.0) -> Method:
    """Prefix tuning: l learned keys and values in front of every attention's own (paper, equations 7 to 10).

    ``length=200`` as in table 3; ``mlp=800`` is the width of the reparametrisation (appendix A), None trains
    keys and values directly.
    """
    form = _prefix(length, mlp, dropout)
    return Method(modifications=(_at("attention.heads", form, Parallel(), Gate()),))


def ungated_prefix(*, length: int = 30, mlp: int | None = 800, scale: Scale = 1.0) -> Method:
    """A prefix whose attention is added instead of gated (paper, table 4, "-gating", l=30)."""
    form = _prefix(length, mlp, 0.0)
    return Method(modifications=(_at("attention.heads", form, Parallel(), Add(scale=scale)),))


def _prefix(length: int, mlp: int | None, dropout: float) -> HeadAttention:
    reparametrization: Any = None if mlp is None else {"width": mlp}  # HeadAttention checks it
    return HeadAttention(length=length, reparametrization=reparametrization, dropout=dropout)


def adapter(
    *,
    rank: int = 200,
    at: str | Sequence[str] = "ffn",
    activation: Activation = "relu",
    layer_norm: LayerNormAt = "none",
    dropout: float = 0.0,
    init: Init = "bert",
    scale: Scale = 1.0,
    variant: Variant = "paper",
) -> Method:
    """Sequential adapter after the attention or FFN sub-layer, or ``both`` (paper, table 3, r=200).

    ``variant="official"`` gives the attention adapter the input layer norm of the released code.
    """
    changes = []
    for place in _places(at, ("attention", "ffn")):
        norm = "in" if variant == "official" and place == "attention" else layer_norm
        form = Bottleneck(rank=rank, activation=activation, layer_norm=norm, dropout=dropout, init=init)
        changes.append(_at(place, form, Sequential(), Add(scale=scale)))
    return Method(modifications=tuple(changes))


def houlsby(
    *, rank: int = 200, activation: Activation = "relu", dropout: float = 0.0, variant: Variant = "paper"
) -> Method:
    """Houlsby adapter: sequential after attention and after the FFN (paper, table 1; Houlsby et al. 2019)."""
    return adapter(rank=rank, at="both", activation=activation, dropout=dropout, variant=variant)


def pfeiffer(
    *, rank: int = 600, activation: Activation = "relu", dropout: float = 0.0, variant: Variant = "paper"
) -> Method:
    """Pfeiffer adapter: sequential, once per layer, after the FFN's add and norm (paper, table 6, r=600).

    ``variant="official"`` is what the released code computes for post-norm models: the change reads the
    normed stream, joins before that norm, and the norm is applied again.
    """
    form = Bottleneck(rank=rank, activation=activation, dropout=dropout, init="bert")
    if variant == "official":
        return Method(modifications=(_at("ffn.residual", form, Sequential(reads="normed"), Add()),))
    return Method(modifications=(_at("block", form, Sequential(), Add()),))


def lora(
    *,
    rank: int = 16,
    scale: Scale = 2.0,
    alpha: float | None = None,
    at: str | Sequence[str] = "attention",
    dropout: float = 0.0,
    init: Init = "lora",
) -> Method:
    """LoRA on any projections (paper, equation 6; Hu et al. 2022).

    Args:
        rank: r; 16 is the paper's for RoBERTa-base.
        scale: s. The paper tunes it: 2 on GLUE, 4 on XSum and en-ro (section 4.5).
        alpha: as in other libraries; sets ``scale = alpha / rank``.
        at: ``attention`` (query and value, section 2.2 and appendix B; table 1 prints key and value),
            ``ffn`` (both matrices, section 4.4), ``both``, ``all`` (every projection), ``embedding``, or a list of
            representations. In a mixture of experts every expert's matrices get a LoRA each.
        dropout: on what it reads.
        init: ``lora`` or ``bert``.
    """
    places = LORA_PLACES.get(at, (at,)) if isinstance(at, str) else tuple(at)
    known = (*LORA_PLACES["all"], "embedding")
    if not places:
        raise MethodError(f"at=[] names no place; choose from: {', '.join((*known, *LORA_PLACES))}.")
    if alpha is not None and not isinstance(alpha, (int, float)):
        raise MethodError(f"alpha: expected a number, found {alpha!r}.")
    for place in places:
        if place not in known:
            raise MethodError(unknown("place 'at'", place, (*known, *LORA_PLACES)))
    form = LowRank(rank=rank, dropout=dropout, init=init)
    composition = Add(scale=alpha / rank if alpha is not None else scale)
    gates = {"ffn.gate"} if at == "all" else set()
    return Method(
        modifications=tuple(_at(place, form, Parallel(), composition, optional=place in gates) for place in places)
    )


def parallel_adapter(
    *,
    rank: int = 512,
    at: str | Sequence[str] = "ffn",
    activation: Activation = "relu",
    layer_norm: LayerNormAt = "none",
    dropout: float = 0.0,
    init: Init = "bert",
    scale: Scale = 1.0,
    reads: Literal["normed", "residual"] = "normed",
    variant: Variant = "paper",
) -> Method:
    """Parallel adapter: a bottleneck beside the attention or FFN sub-layer, or ``both`` (paper, section 3.3, table 5).

    ``variant="official"`` is what the released code computes: at attention a layer-normed input and the
    change joined before the output projection; at the FFN the input of pre-norm models taken before the norm.
    """
    changes = []
    for place in _places(at, ("attention", "ffn")):
        official = variant == "official"
        norm = "in" if official and place == "attention" else layer_norm
        form = Bottleneck(rank=rank, activation=activation, layer_norm=norm, dropout=dropout, init=init)
        joined = "attention.heads" if official and place == "attention" else place
        insertion = Parallel(reads="residual" if official and place == "ffn" else reads)
        changes.append(_at(joined, form, insertion, Add(scale=scale)))
    return Method(modifications=tuple(changes))


def scaled_parallel_adapter(
    *,
    rank: int = 512,
    scale: Scale = 4.0,
    activation: Activation = "relu",
    dropout: float = 0.0,
    variant: Variant = "paper",
) -> Method:
    """Scaled parallel adapter at the FFN, starting at zero change (paper, section 4.5 and table 5: r=512, s=4).

    ``scale="learned"`` trains one s per layer, from 1. ``activation="model"`` makes the adapter r more hidden units
    of the FFN, so that it folds into a wider one.
    """
    return parallel_adapter(
        rank=rank, scale=scale, activation=activation, init="lora", dropout=dropout, variant=variant
    )


def multi_head_parallel_adapter(
    *, rank: int = 30, scale: Scale = 1.0, init: Init = "bert", variant: Variant = "paper"
) -> Method:
    """Multi-head parallel adapter: ``ReLU(x W_q P_kᵀ) P_v`` added in every head (paper, section 4.3 and table 4, r=30).

    ``variant="official"`` is the released code's for BART: q from a layer-normed x, not scaled.
    """
    official = variant == "official"
    form = HeadAttention(
        length=rank,
        activation="relu",
        init=init,
        layer_norm="in" if official else "none",
        scale_query=not official,
    )
    return Method(modifications=(_at("attention.heads", form, Parallel(), Add(scale=scale)),))


def mam(
    *,
    length: int = 30,
    rank: int = 512,
    scale: Scale = 4.0,
    mlp: int | None = 800,
    activation: Activation = "relu",
    dropout: float = 0.0,
    variant: Variant = "paper",
) -> Method:
    """Mix-And-Match adapter: a short prefix and a scaled parallel FFN adapter (paper, section 4.6, table 6).

    Defaults are those of XSum and en-ro; on GLUE the paper uses length=16, rank=16, scale=2.
    """
    return prefix_tuning(length=length, mlp=mlp) + scaled_parallel_adapter(
        rank=rank, scale=scale, activation=activation, dropout=dropout, variant=variant
    )


def ia3() -> Method:
    """(IA)^3: factors on keys, values and the FFN's inner activation (Liu et al. 2022; beyond the paper)."""
    places = ("attention.key", "attention.value", "ffn.hidden")
    return Method(modifications=tuple(_at(place, Rescale(), Sequential(), Multiply()) for place in places))


ENTRIES: tuple[Entry, ...] = (
    Entry("full", "full fine-tuning", full, "tables 2, 6", "the baseline"),
    Entry("head_only", "head only", head_only, "-", "the lower baseline"),
    Entry("bitfit", "BitFit", bitfit, "section 2.2, tables 2, 6", "Ben Zaken et al. 2022"),
    Entry("prompt_tuning", "prompt tuning", prompt_tuning, "section 3.2, table 6", "Lester et al. 2021"),
    Entry("prefix_tuning", "prefix tuning", prefix_tuning, "table 1, equations 7-10", "Li and Liang 2021"),
    Entry("adapter", "sequential adapter", adapter, "table 1, table 3", "Houlsby et al. 2019"),
    Entry("houlsby", "Houlsby adapter", houlsby, "section 2.2, table 1", "Houlsby et al. 2019"),
    Entry("pfeiffer", "Pfeiffer adapter", pfeiffer, "section 2.2, table 6", "Pfeiffer et al. 2021"),
    Entry("lora", "LoRA", lora, "table 1, equation 6", "Hu et al. 2022"),
    Entry("parallel_adapter", "parallel adapter", parallel_adapter, "section 3.3, table 1", "He et al. 2022"),
    Entry(
        "multi_head_parallel_adapter",
        "multi-head parallel adapter",
        multi_head_parallel_adapter,
        "section 4.3, tables 1, 4",
        "He et al. 2022",
    ),
    Entry(
        "scaled_parallel_adapter",
        "scaled parallel adapter",
        scaled_parallel_adapter,
        "section 4.5, tables 1, 5",
        "He et al. 2022",
    ),
    Entry("ungated_prefix", "ungated prefix", ungated_prefix, "table 4", "He et al. 2022"),
    Entry("mam", "mix-and-match adapter", mam, "section 4.6, table 6", "He et al. 2022"),
    Entry("ia3", "(IA)^3", ia3, "beyond the paper", "Liu et al. 2022"),
)


def names() -> tuple[str, ...]:
    """Return the names of every entry, in the paper's order."""
    return tuple(entry.name for entry in ENTRIES)


def find(name: str) -> Entry:
    """Return the entry called ``name``.

    Raises:
        NotationError: there is none; the message has the near match.
    """
    for entry in ENTRIES:
        if entry.name == name:
            return entry
    raise NotationError(unknown("method", name, names()))
