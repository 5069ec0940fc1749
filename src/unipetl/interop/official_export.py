"""The way back: an attachment as the option values and the state dict of the released code."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from unipetl.attaching.state import state_of, trained_tensors
from unipetl.composition import Add, Gate
from unipetl.errors import InteropError
from unipetl.forms import Bottleneck, HeadAttention, LowRank, Prompt
from unipetl.insertion import Sequential
from unipetl.interop.official_model import depths_of, dropouts_of, family_of, refuse_uneven_stacks
from unipetl.interop.official_names import bare_name, entries, full_name
from unipetl.interop.official_options import Family, method_of, read_options
from unipetl.method import Method, Modification


def official_state_dict(model: nn.Module, name: str | None = None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the options and the trained tensors with which the released code computes the same function.

    The state dict has the full official names and copies on the CPU of what is trained here; base weights and
    what the release builds and never reads are not in it. [load][unipetl.interop.official.load] reads it back.

    Args:
        model: a BART, mBART or RoBERTa model.
        name: which attachment; None if there is only one.

    Raises:
        InteropError: the released code has no options for this method.
    """
    record = state_of(model).find(name)
    plan, family = record.plan, family_of(model)
    dropouts, depths = dropouts_of(model, family), depths_of(model, family)
    options = options_of(plan.method, family, dropouts)
    refuse_uneven_stacks(model, read_options(options), family, depths)
    tensors = trained_tensors(model, record)
    state: dict[str, Tensor] = {}
    for entry in entries(plan, family, depths[0]):
        value = tensors[entry.ours].detach().cpu()
        unread = torch.zeros(entry.shape[0] - entry.rows, *entry.shape[1:], dtype=value.dtype)
        state[full_name(entry.official, family)] = torch.cat([value, unread])
    for path, _ in plan.trained:
        state[full_name(bare_name(path), family)] = tensors[f"model/{path}"].detach().cpu().clone()
    return options, state


def options_of(method: Method, family: Family, dropouts: tuple[float, float]) -> dict[str, Any]:
    """Return the options that mean ``method`` on a model of ``family`` with these dropout probabilities.

    Raises:
        InteropError: there are none; the message has the part that the released code cannot express.
    """
    options: dict[str, Any] = {"attn_mode": "bitfit"} if "bias" in method.train else {}
    for one in method.modifications:
        for key, value in _options_of_one(one).items():
            if options.setdefault(key, value) != value:
                raise InteropError(
                    f"the released code has one {key!r}; this method needs {options[key]!r} and {value!r}."
                )
    for key, probability in zip(("dropout", "attention_dropout"), dropouts, strict=True):
        if options.get(key) == probability:
            del options[key]
    meant = method_of(read_options(options), family, *dropouts)
    wanted, found = _without_start(method), _without_start(meant)
    for one in wanted:
        if one not in found:
            raise InteropError(f"the released code has no options for this on {family}: {one.plain()}.")
    for one in found:
        if one not in wanted:
            raise InteropError(f"the released code has no options that leave this away on {family}: {one.plain()}.")
    if set(method.train) - {"head"} != set(meant.train):
        raise InteropError(f"the released code has no options that train these beside: {', '.join(method.train)}.")
    return options


def _without_start(method: Method) -> list[Modification]:
    """Return the modifications with one kind of initial values, which no trained tensor remembers."""
    found = []
    for one in method.modifications:
        init = {"init": "bert"} if "init" in type(one.form).model_fields else {}
        found.append(one.model_copy(update={"form": one.form.model_copy(update=init)}))
    return found


def _options_of_one(one: Modification) -> dict[str, Any]:
    form, where, scale = one.form, one.representation.name, getattr(one.composition, "scale", 1.0)
    feed_forward = where.startswith("ffn")
    if isinstance(form, Prompt):
        return {"attn_mode": "prompt_tuning", "attn_bn": form.length}
    if isinstance(form, HeadAttention):
        return _prefix_options(form, gated=isinstance(one.composition, Gate))
    if isinstance(form, LowRank) and isinstance(scale, float):
        size = (
            {"ffn_mode": "lora", "ffn_bn": form.rank} if feed_forward else {"attn_mode": "lora", "attn_bn": form.rank}
        )
        return {**size, "lora_alpha": scale * form.rank, "lora_dropout": form.dropout, "lora_init": form.init}
    if isinstance(form, Bottleneck) and isinstance(one.composition, Add):
        option = "sequential" if isinstance(one.insertion, Sequential) else "parallel"
        if not feed_forward:
            return {
                "attn_mode": "adapter",
                "attn_option": option,
                "attn_bn": form.rank,
                "attention_dropout": form.dropout,
            }
        factor = form.inner_scale if form.layer_norm == "out" else scale
        return {
            "ffn_mode": "adapter",
            "ffn_option": "pfeiffer" if where == "ffn.residual" else option,
            "ffn_bn": form.rank,
            "ffn_adapter_layernorm_option": form.layer_norm,
            "ffn_adapter_init_option": form.init,
            "ffn_adapter_scalar": "learnable_scalar" if factor == "learned" else str(factor),
            "dropout": form.dropout,
        }
    raise InteropError(f"the released code has no options for this: {one.plain()}.")


def _prefix_options(form: HeadAttention, *, gated: bool) -> dict[str, Any]:
    mlp = form.reparametrization
    options: dict[str, Any] = {"attn_mode": "prefix_nomlp" if mlp is None else "prefix", "attn_bn": form.length}
    if mlp is not None:
        options |= {"mid_dim": mlp.width, "prefix_dropout": form.dropout}
    if form.activation == "relu":
        return {**options, "attn_option": "cross_attn_relu"}
    if form.layer_norm == "none":
        return {**options, "attn_option": "concat" if gated else "cross_attn_noln"}
    return {**options, "attn_option": "cross_attn", "attn_composition": "gate_add" if gated else "add"}
