r"""Bottlenecks in files of AdapterHub.

With h the result of a sub-layer, x what the residual connection adds to it, A the bottleneck and n the norm that
follows in post-norm blocks, the library computes (``original_ln_before``, ``original_ln_after``,
``residual_before_ln``):

* parallel, after: :math:`h + s A(x)`, then the model's own residual and norm;
* sequential, not before, after: :math:`h + s A(h)`, then residual and norm (Houlsby);
* sequential, before, after, true: :math:`h + x + s A(n(h + x))`, then the norm (Pfeiffer);
* sequential, before, not after, false: :math:`r + s A(r)` with r the block's result (AdapterPlus); in pre-norm blocks
  this and the one before are the same.

Other combinations lose the model's residual, add it twice or raise in the library.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from unipetl.composition import Add
from unipetl.errors import InteropError
from unipetl.forms import Bottleneck
from unipetl.forms.bottleneck import Activation
from unipetl.forms.form import LayerNormAt
from unipetl.insertion import Insertion, Parallel, Sequential
from unipetl.interop.adapterhub.layout import ATTENTION, CROSS, FEED_FORWARD, Holder, Layout
from unipetl.interop.adapterhub.pool import Pool
from unipetl.interop.adapterhub.settings import Settings, refuse_training_only
from unipetl.method import Modification

#: transformers' name of an activation -> ours; several names may be one function.
ACTIVATIONS: dict[str, Activation] = {
    "relu": "relu", "gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "swish": "silu",
    "silu": "silu", "tanh": "tanh", "linear": "identity",
}  # fmt: skip


@dataclass(frozen=True)
class Spec:
    """What the file wants at one place: everything of a modification but the place."""

    form: Bottleneck
    insertion: Insertion
    scale: float | Literal["learned"]

    def at(self, representation: Mapping[str, Any]) -> Modification:
        """Return the modification at a place."""
        return Modification(
            representation=dict(representation),
            form=self.form,
            insertion=self.insertion,
            composition=Add(scale=self.scale),
        )


def read_bottleneck(
    settings: Settings, layout: Layout, pool: Pool, *, ignore_dropout: bool
) -> tuple[dict[str, Spec], dict[str, dict[str, Tensor]]]:
    """Return what a bottleneck's settings want at every site, and the values there.

    Raises:
        InteropError: the settings mean another function than any of ours, or a tensor is missing.
    """
    refuse_training_only(settings, ignore_dropout=ignore_dropout, names=("dropout", "stochastic_depth"))
    wanted = [where for where in (ATTENTION, FEED_FORWARD, CROSS) if settings.flag(where)]
    specs: dict[str, Spec] = {}
    values: dict[str, dict[str, Tensor]] = {}
    for holder in layout.holders:
        if holder.location not in wanted or holder.layer in settings.left_out():
            continue
        spec, representation = _spec(settings, layout, holder)
        site = layout.site(holder, representation)
        specs[site.name] = spec
        values[site.name] = _values(spec, settings, pool, f"{holder.path}.adapters.{pool.name}")
    return specs, values


def _spec(settings: Settings, layout: Layout, holder: Holder) -> tuple[Spec, str]:
    norm_first = next(one.stack.norm_first for one in layout.sites if one.stack.stack == holder.stack)
    insertion, representation = _place(settings, holder.location, norm_first=norm_first)
    scaling = settings.values["scaling"]
    if scaling not in ("learned", "channel") and (not isinstance(scaling, float) or not scaling):
        raise InteropError(f"{settings.where}: scaling {scaling!r}; the library takes a float, 'learned' or 'channel'.")
    scale: float | Literal["learned"] = "learned" if scaling == "learned" else 1.0 if scaling == "channel" else scaling
    norm = _norm(settings)
    form = Bottleneck(
        rank=_rank(settings, layout.width, holder.layer),
        activation=_activation(settings),
        layer_norm=norm,
        init="lora" if settings.values["init_weights"] == "mam_adapter" else "bert",
        inner_scale=scale if norm == "out" else 1.0,
    )
    return Spec(form, insertion, 1.0 if norm == "out" else scale), representation


def _place(settings: Settings, location: str, *, norm_first: bool) -> tuple[Insertion, str]:
    before, after = settings.flag("original_ln_before"), settings.flag("original_ln_after")
    residual = settings.values["residual_before_ln"]
    inner = "ffn" if location == FEED_FORWARD else "attention"
    where = settings.where
    if settings.flag("is_parallel"):
        if not after:
            raise InteropError(f"{where}: original_ln_after=false leaves the model's own residual and norm away.")
        return Parallel(reads="residual" if norm_first else "normed"), inner
    if not before:
        if not after:
            raise InteropError(f"{where}: original_ln_after=false leaves the model's own residual and norm away.")
        if residual not in (True, False):
            raise InteropError(f"{where}: residual_before_ln={residual!r} needs original_ln_before.")
        return Sequential(), inner
    if location != FEED_FORWARD:
        raise InteropError(
            f"{where}: original_ln_before=true at an attention reads the residual stream behind it, which is no "
            "representation of the design space (behind the FFN it is 'ffn.residual')."
        )
    if residual is True and after:
        return Sequential(reads="itself" if norm_first else "normed"), "ffn.residual"
    if residual is False and not after:
        return Sequential(), "block"
    raise InteropError(
        f"{where}: original_ln_before=true with original_ln_after={str(after).lower()} and residual_before_ln="
        f"{residual!r} adds the model's residual {'twice' if after else 'never'}, or puts a second norm behind it."
    )


def _norm(settings: Settings) -> LayerNormAt:
    before, after = settings.flag("ln_before"), settings.flag("ln_after")
    if before and after:
        raise InteropError(f"{settings.where}: ln_before and ln_after; a bottleneck of unipetl has one norm.")
    if after and settings.flag("adapter_residual_before_ln") and not settings.flag("is_parallel"):
        raise InteropError(
            f"{settings.where}: adapter_residual_before_ln=true normalises h together with its change, so the change "
            "is not added to h."
        )
    return "in" if before else "out" if after else "none"


def _activation(settings: Settings) -> Activation:
    name = settings.word("non_linearity").lower()
    if name not in ACTIVATIONS:
        raise InteropError(
            f"{settings.where}: non_linearity {name!r}; unipetl's bottlenecks have {', '.join(ACTIVATIONS)}."
        )
    return ACTIVATIONS[name]


def _rank(settings: Settings, width: int, layer: int) -> int:
    factor = settings.values["reduction_factor"]
    if isinstance(factor, Mapping):
        factor = factor.get(str(layer), factor.get("default"))
    if isinstance(factor, bool) or not isinstance(factor, (int, float)) or factor <= 0:
        raise InteropError(f"{settings.where}: no reduction_factor above 0 for layer {layer}: {factor!r}.")
    return max(int(width // factor), 1)


def _values(spec: Spec, settings: Settings, pool: Pool, path: str) -> dict[str, Tensor]:
    norm = spec.form.layer_norm
    linear = 1 if norm == "in" else 0
    found = {
        "down": pool.take(f"{path}.adapter_down.{linear}.weight"),
        "down_bias": pool.take(f"{path}.adapter_down.{linear}.bias"),
        "up": pool.take(f"{path}.adapter_up.weight"),
        "up_bias": pool.take(f"{path}.adapter_up.bias"),
    }
    if norm == "in":
        for part in ("weight", "bias"):
            found[f"layer_norm.{part}"] = pool.take(f"{path}.adapter_norm_before.{part}")
            if pool.has(f"{path}.adapter_down.0.{part}"):  # the same tensor under a second name
                pool.take(f"{path}.adapter_down.0.{part}")
    elif norm == "out":
        for part in ("weight", "bias"):
            found[f"layer_norm.{part}"] = pool.take(f"{path}.adapter_norm_after.{part}")
    if settings.values["scaling"] == "learned":
        found["inner_scale" if norm == "out" else "scale"] = pool.take(f"{path}.scaling")
    elif settings.values["scaling"] == "channel":  # s ⊙ (W z + b) = (s ⊙ W) z + s ⊙ b
        scale = pool.take(f"{path}.scaling")
        found["up"], found["up_bias"] = scale[:, None] * found["up"], scale * found["up_bias"]
    return found
