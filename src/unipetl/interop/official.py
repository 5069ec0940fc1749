"""Reads what the released code of He et al. 2022 trained.

https://github.com/jxhe/unify-parameter-efficient-tuning, as of March 2022, wraps forked BART, mBART and
RoBERTa. [load][] takes its option values and its state dict and attaches the method that computes the
same function to the model of transformers, loss and gradients included::

    from unipetl.interop import official

    state = torch.load("pytorch_model.bin", weights_only=True)
    attachment = official.load(model, {"attn_mode": "prefix", "attn_bn": 30, ...}, state)

Of the state dict, three groups are left aside. Silently: the base model's own values where the method does
not train them, and parameters that the release builds and never reads (on RoBERTa the encoder and cross
prefixes and the second, unused parallel FFN adapter; the layer norms of ``cross_attn_relu`` on mBART and
RoBERTa; prefixes of layers that a decoder shallower than its encoder does not have). With one warning: base
values that differ from the model's, and a whole ``attn_mode`` that the release accepts and does nothing with
(on RoBERTa a prompt, or a prefix with an option of another mode; an attention adapter that is neither
sequential nor parallel). Anything else left over is an error.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from unipetl.attaching import Attachment, attach, detach
from unipetl.attaching.state import CHILD, own_parameters
from unipetl.errors import InteropError, nearest
from unipetl.interop.official_export import official_state_dict
from unipetl.interop.official_model import depths_of, dropouts_of, family_of, refuse_uneven_stacks
from unipetl.interop.official_names import WRAPPER, Entry, bare_name, entries, full_name, unused
from unipetl.interop.official_options import Family, Options, acts, method_of, read_options
from unipetl.planning import plan

__all__ = ["load", "official_state_dict"]


def load(
    model: nn.Module, options: Mapping[str, Any], state_dict: Mapping[str, Tensor], *, name: str = "default"
) -> Attachment:
    """Attach what the released code trained with ``options``, with the values of ``state_dict``.

    Everything is checked first; the model is touched only if every tensor fits. Values take the dtype and
    device of the attachment's parameters. As in the release, a classification head stays frozen; where the
    state dict carries other values for it than the model has, they become part of the attachment, so that
    detaching gives the model's own head back.

    Args:
        model: a BART, mBART or RoBERTa model with any head, or none.
        options: the release's option values, as text or numbers; its defaults stand for missing ones.
        state_dict: its tensors, with or without ``pretrained_model.`` in front, base weights allowed.
        name: the attachment's name.

    Returns:
        A handle.

    Raises:
        InteropError: an option is unknown or made the released code raise, or a tensor is missing, left
            over or of another shape; the message names it.
        AttachError: the name is taken, or an active attachment trains the same parameters.
    """
    asked = read_options(options)
    family = family_of(model)
    depths = depths_of(model, family)
    refuse_uneven_stacks(model, asked, family, depths)
    planned = plan(method_of(asked, family, *dropouts_of(model, family)), model, train_head=False)
    given = _bare(state_dict)
    own = _own_tensors(model)
    wanted = {entry.official: entry for entry in entries(planned, family, depths[0])}
    for path, _ in planned.trained:
        shape = tuple(own[bare_name(path)].shape)
        wanted[bare_name(path)] = Entry(f"model/{path}", bare_name(path), shape, shape[0])
    dead = unused(asked, family, *depths)
    _check_names(wanted, given, own, family, [one for one in given if any(p.fullmatch(one) for p in dead)])
    _check_shapes(wanted, given, own, family)
    changed = _changed(wanted, given, own)
    head = {path: bare_name(path) for path in planned.head if bare_name(path) in changed}
    _warn(asked, family, sorted(changed - set(head.values())))
    attachment = attach(model, planned.method, name=name, train_head=bool(head))
    try:
        _copy(attachment, wanted, given, head)
    except BaseException:
        detach(model, name)
        raise
    return attachment


def _bare(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for key, value in state_dict.items():
        if not isinstance(value, Tensor):
            raise InteropError(f"state dict: {key!r} must be a tensor, found {type(value).__name__}.")
        if bare_name(key) in found:
            raise InteropError(
                f"state dict: {key!r} stands there twice, with and without {WRAPPER!r} or the base's name."
            )
        found[bare_name(key)] = value.detach()
    return found


def _own_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return the model's own parameters and buffers under every bare name they have."""
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    return {bare_name(path): tensor for path, tensor in named if f".{CHILD}." not in f".{path}"}


def _check_names(
    wanted: Mapping[str, Entry], given: Mapping[str, Tensor], own: Mapping[str, Tensor], family: Family, dead: list[str]
) -> None:
    missing = [one for one in wanted if one not in given]
    left = [one for one in given if one not in wanted and one not in own and one not in dead]
    if missing:
        near = nearest(missing[0], left)
        hint = f" Nearest of those left over: {full_name(near, family)!r}." if near else ""
        raise InteropError(f"state dict: {full_name(missing[0], family)!r} is missing{_more(missing)}.{hint}")
    if left:
        raise InteropError(
            f"state dict: {full_name(left[0], family)!r} is left over{_more(left)}: with these options the released "
            "code has no such parameter. Check the options against those of the run."
        )


def _more(names: list[str]) -> str:
    return f", and {len(names) - 1} more" if len(names) > 1 else ""


def _check_shapes(
    wanted: Mapping[str, Entry], given: Mapping[str, Tensor], own: Mapping[str, Tensor], family: Family
) -> None:
    for name, value in given.items():
        expected = wanted[name].shape if name in wanted else tuple(own[name].shape) if name in own else None
        if expected is not None and tuple(value.shape) != expected:
            raise InteropError(
                f"state dict: {full_name(name, family)!r} has shape {tuple(value.shape)}; with these options and this "
                f"model it must be {expected}."
            )


def _changed(wanted: Mapping[str, Entry], given: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> set[str]:
    """Return the model's own tensors that are not trained and have other values in the state dict."""
    return {
        name
        for name, mine in own.items()
        if name in given
        and name not in wanted
        and mine.device.type != "meta"
        and not torch.equal(given[name].to(mine.device, mine.dtype), mine)
    }


def _warn(asked: Options, family: Family, changed: list[str]) -> None:
    if not acts(asked, family):
        warnings.warn(
            f"attn_mode {asked.attn_mode!r} with attn_option {asked.attn_option!r} does nothing on {family} in the "
            "released code, and nothing here; its tensors are ignored.",
            stacklevel=3,
        )
    if asked.attn_mode == "bitfit" and asked.ffn_mode != "none":
        warnings.warn(
            f"attn_mode 'bitfit' with ffn_mode {asked.ffn_mode!r}: the released code never trains the inserted "
            "matrices (it trains what has 'bias' in its name); the function is the same, and here they are trained.",
            stacklevel=3,
        )
    if changed:
        warnings.warn(
            f"{len(changed)} of the base model's own tensors have other values in the state dict, "
            f"{full_name(changed[0], family)!r} for one; the model's are kept. Is it the base model of the run?",
            stacklevel=3,
        )


def _copy(
    attachment: Attachment, wanted: Mapping[str, Entry], given: Mapping[str, Tensor], head: Mapping[str, str]
) -> None:
    tensors = attachment.tensors()
    own = own_parameters(attachment.model)
    with torch.no_grad():
        for entry in wanted.values():
            tensors[entry.ours].copy_(given[entry.official][: entry.rows])
        for path, official in head.items():
            own[path].copy_(given[official])
    if head:  # train_head was needed for the values to belong to the attachment; the release trains none of it
        for path in attachment.plan.head:
            if bare_name(path) not in wanted:
                own[path].requires_grad_(False)
