"""The option values of the released code, and the method each of them means.

Names, allowed values and defaults are those of its ``TuneArguments`` (March 2022); what they compute is
written next to the line that translates it. Options that made the released code raise are refused here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from unipetl.axis import explain
from unipetl.composition import Add, Composition, Gate
from unipetl.errors import InteropError, MethodError
from unipetl.forms import Bottleneck, HeadAttention, LowRank, Mlp, Prompt
from unipetl.forms.form import Init, LayerNormAt
from unipetl.insertion import Insertion, Parallel, Sequential
from unipetl.method import Method, Modification, Trained
from unipetl.representation import Representation

Family = Literal["bart", "mbart", "roberta"]
PREFIX_OPTIONS = ("concat", "cross_attn", "cross_attn_noln", "cross_attn_relu")
ADAPTER_OPTIONS = ("sequential", "parallel")


class Options(BaseModel):
    """The released code's options, with its defaults; numbers may be written as text.

    ``dropout`` and ``attention_dropout`` are its options for mBART; None means the model's own. ``load_path``
    changes no function. ``layer_norm_after`` is no option of the release, and the release cannot run RoBERTa's
    ``cross_attn`` family without it: False is taken for granted here.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    attn_mode: Literal["none", "prefix", "prefix_nomlp", "adapter", "lora", "bitfit", "prompt_tuning"] = "none"
    attn_option: Literal[
        "none", "concat", "cross_attn", "cross_attn_noln", "cross_attn_relu", "parallel", "sequential"
    ] = "concat"
    attn_composition: Literal["add", "gate_add"] = "add"
    ffn_mode: Literal["none", "adapter", "lora"] = "none"
    ffn_option: Literal["none", "parallel", "sequential", "pfeiffer"] = "none"
    ffn_adapter_layernorm_option: LayerNormAt = "in"
    ffn_adapter_init_option: Init = "bert"
    ffn_adapter_scalar: Literal["learnable_scalar"] | float = 1.0
    mid_dim: int = Field(default=800, gt=0)
    attn_bn: int = 200
    ffn_bn: int = -1
    prefix_dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    unfreeze_params: str = "ef_"
    load_path: str = ""
    lora_alpha: float = 32.0
    lora_dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    lora_init: Init = "lora"
    dropout: float | None = None
    attention_dropout: float | None = None
    layer_norm_after: Literal[False] = False


def read_options(options: Mapping[str, Any]) -> Options:
    """Return ``options`` checked, with the released defaults for what is missing or None.

    Raises:
        InteropError: an option is unknown (with the near match) or has a value the released code refuses.
    """
    if not isinstance(options, Mapping):
        raise InteropError(f"options: expected a mapping of the released code's options, found {options!r}.")
    given = {str(key): value for key, value in options.items() if value is not None}
    try:
        read = Options.model_validate(given)
    except ValidationError as error:
        raise InteropError(explain(error, "options of the released code", Options)) from None
    _refuse_what_raised(read)
    return read


def _refuse_what_raised(o: Options) -> None:
    if o.attn_mode in ("prefix", "prefix_nomlp", "adapter", "lora", "prompt_tuning") and o.attn_bn <= 0:
        raise InteropError(f"attn_bn: attn_mode {o.attn_mode!r} needs a size above 0, found {o.attn_bn}.")
    if o.ffn_mode != "none" and o.ffn_bn <= 0:
        raise InteropError(
            f"ffn_bn: ffn_mode {o.ffn_mode!r} needs a size above 0, found {o.ffn_bn} (the released default is -1)."
        )
    if o.ffn_mode == "adapter" and o.ffn_option == "none":
        raise InteropError(
            "ffn_option 'none' with ffn_mode 'adapter': the released code does not run it. "
            "Use 'sequential', 'parallel' or 'pfeiffer', or ffn_mode 'none'."
        )
    if o.attn_composition == "gate_add" and o.attn_mode != "none":
        if o.attn_mode not in ("prefix", "prefix_nomlp"):
            raise InteropError(
                f"attn_composition 'gate_add' with attn_mode {o.attn_mode!r}: the released code raises "
                "UnboundLocalError, since there are no prefix scores to gate with. Use 'add'."
            )
        if o.attn_option not in ("cross_attn", "cross_attn_noln"):
            raise InteropError(
                f"attn_composition 'gate_add' with attn_option {o.attn_option!r}: the gate is defined for 'cross_attn' "
                "and 'cross_attn_noln'. ('concat' with 'add' is already gated: one softmax.)"
            )
    pure_prefix = o.ffn_mode == "none" and o.attn_option in ("concat", "cross_attn_noln") and "prefix" in o.attn_mode
    whole = o.attn_mode == "bitfit" or (o.attn_mode, o.ffn_mode) == ("none", "none")
    if not whole and o.unfreeze_params != "ef_" and not (o.unfreeze_params == "none" and pure_prefix):
        raise InteropError(
            f"unfreeze_params {o.unfreeze_params!r}: only 'ef_' (every inserted parameter, nothing else) can be "
            "translated; other values train other parts of the pretrained model."
        )


def method_of(o: Options, family: Family, dropout: float, attention_dropout: float) -> Method:
    """Return the method that the options mean on a model of ``family`` with these dropout probabilities.

    Raises:
        InteropError: the released code raises with these options on this family, or they mean nothing.
    """
    dropout = dropout if o.dropout is None else o.dropout
    attention_dropout = attention_dropout if o.attention_dropout is None else o.attention_dropout
    train: tuple[Trained, ...] = ("bias",) if o.attn_mode == "bitfit" else ()
    if o.attn_mode == o.ffn_mode == "none":  # the scripts do not wrap the model then: full fine-tuning
        train = ("all",)
    try:
        attention = _attention(o, family, attention_dropout)
        return Method(modifications=(*attention, *_feed_forward(o, family, dropout)), train=train)
    except MethodError as error:
        raise InteropError(f"options of the released code: {error}") from error


def acts(o: Options, family: Family) -> bool:
    """Return whether ``attn_mode`` changes the function at all: some combinations silently do nothing."""
    if o.attn_mode in ("prefix", "prefix_nomlp"):
        return o.attn_option in PREFIX_OPTIONS
    if o.attn_mode == "adapter":
        return o.attn_option in ADAPTER_OPTIONS
    return not (o.attn_mode == "prompt_tuning" and family == "roberta")


def _change(
    where: str, form: Bottleneck | HeadAttention | LowRank | Prompt, insertion: Insertion, composition: Composition
) -> Modification:
    return Modification(
        representation=Representation(name=where), form=form, insertion=insertion, composition=composition
    )


def _attention(o: Options, family: Family, dropout: float) -> list[Modification]:
    if o.attn_mode in ("prefix", "prefix_nomlp"):
        if family == "roberta" and o.attn_composition == "gate_add":
            raise InteropError(
                "attn_composition 'gate_add' on RoBERTa: the released code raises RuntimeError for any input. "
                "attn_option 'concat' with 'add' is the same function as 'cross_attn_noln' with 'gate_add'."
            )
        if family != "roberta" and not acts(o, family):
            raise InteropError(
                f"attn_option {o.attn_option!r} with attn_mode {o.attn_mode!r}: the released code raises ValueError. "
                f"Use one of: {', '.join(PREFIX_OPTIONS)}."
            )
    if not acts(o, family):
        return []
    if o.attn_mode in ("prefix", "prefix_nomlp"):
        return [_prefix(o, family)]
    if o.attn_mode == "adapter":  # always a layer norm on what it reads, s = 1 and BERT's initial values
        form = Bottleneck(rank=o.attn_bn, layer_norm="in", dropout=dropout, init="bert")
        if o.attn_option == "sequential":
            return [_change("attention", form, Sequential(), Add())]
        return [_change("attention.heads", form, Parallel(), Add())]  # joins before the output projection
    if o.attn_mode == "lora":
        lora = LowRank(rank=o.attn_bn, dropout=o.lora_dropout, init=o.lora_init)
        scale = Add(scale=o.lora_alpha / o.attn_bn)
        return [_change(where, lora, Parallel(), scale) for where in ("attention.query", "attention.value")]
    if o.attn_mode == "prompt_tuning":
        return [_change("input", Prompt(length=o.attn_bn), Parallel(), Gate())]
    return []


def _prefix(o: Options, family: Family) -> Modification:
    mlp = Mlp(width=o.mid_dim) if o.attn_mode == "prefix" else None
    relu = o.attn_option == "cross_attn_relu"
    normed = o.attn_option == "cross_attn" or (relu and family == "bart")  # elsewhere relu's norm is never used
    form = HeadAttention(
        length=o.attn_bn,
        activation="relu" if relu else "softmax",
        reparametrization=mlp,
        layer_norm="in" if normed else "none",
        scale_query=not (relu and family == "bart"),
        dropout=o.prefix_dropout if mlp is not None else 0.0,  # prefix_nomlp ignores it
        init="bert",
    )
    gated = o.attn_option == "concat" or o.attn_composition == "gate_add"
    return _change("attention.heads", form, Parallel(), Gate() if gated else Add())


def _feed_forward(o: Options, family: Family, dropout: float) -> list[Modification]:
    if o.ffn_mode == "none":
        return []
    if o.ffn_mode == "lora":
        lora = LowRank(rank=o.ffn_bn, dropout=o.lora_dropout, init=o.lora_init)
        scale = Add(scale=o.lora_alpha / o.ffn_bn)
        return [_change(where, lora, Parallel(), scale) for where in ("ffn.up", "ffn.down")]
    factor: float | Literal["learned"] = (
        "learned" if o.ffn_adapter_scalar == "learnable_scalar" else float(o.ffn_adapter_scalar)
    )
    out = o.ffn_adapter_layernorm_option == "out"  # then the norm comes after the scale
    form = Bottleneck(
        rank=o.ffn_bn,
        layer_norm=o.ffn_adapter_layernorm_option,
        dropout=dropout,
        init=o.ffn_adapter_init_option,
        inner_scale=factor if out else 1.0,
    )
    composition = Add(scale=1.0 if out else factor)
    if o.ffn_option == "sequential":
        return [_change("ffn", form, Sequential(), composition)]
    if o.ffn_option == "parallel":  # beside the FFN; in pre-norm mBART it reads the stream before the norm
        return [_change("ffn", form, Parallel(reads="residual"), composition)]
    if family == "bart":
        raise InteropError(
            "ffn_option 'pfeiffer' on BART: the released code raises ValueError. Use 'sequential' or 'parallel'."
        )
    reads: Literal["itself", "normed"] = "normed" if family == "roberta" else "itself"
    return [_change("ffn.residual", form, Sequential(reads=reads), composition)]
