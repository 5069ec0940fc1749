"""LoRA and (IA)^3 in files of AdapterHub. A is (r, in), B (out, r), also for transposed weights; s = alpha / r.

(IA)^3 is a LoRA with ``composition_mode`` ``scale``: B is (out, 1) and multiplies the projection's result (of the
first FFN projection, too, before the activation), with alpha as a factor. A fused projection is one LoRA in the file:
the A of its parts stand one below the other, and so do the B.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from unipetl.architectures import Site
from unipetl.composition import Add, Multiply
from unipetl.errors import InteropError
from unipetl.forms import Features, LowRank, Rescale
from unipetl.insertion import Parallel, Sequential
from unipetl.interop.adapterhub.layout import Layout
from unipetl.interop.adapterhub.pool import Pool
from unipetl.interop.adapterhub.settings import Settings
from unipetl.method import Modification

_LETTERS = ("q", "k", "v", "o")


@dataclass(frozen=True)
class Spec:
    """What the file wants at one place: everything of a modification but the place."""

    form: LowRank | Rescale
    scale: float

    def at(self, representation: Mapping[str, Any]) -> Modification:
        """Return the modification at a place."""
        rescaled = isinstance(self.form, Rescale)
        return Modification(
            representation=dict(representation),
            form=self.form,
            insertion=Sequential() if rescaled else Parallel(),
            composition=Multiply() if rescaled else Add(scale=self.scale),
        )


def read_lora(settings: Settings, layout: Layout, pool: Pool) -> tuple[dict[str, Spec], dict[str, dict[str, Tensor]]]:
    """Return what a LoRA's settings want at every site, and the values there.

    Raises:
        InteropError: the settings mean another function than any of ours, or a tensor is missing.
    """
    mode, rank, alpha = settings.word("composition_mode"), settings.whole("r"), settings.number("alpha")
    if mode not in ("add", "scale") or not alpha:
        raise InteropError(f"{settings.where}: composition_mode {mode!r} with alpha {alpha:g} is no LoRA or (IA)^3.")
    if mode == "scale" and rank != 1:
        raise InteropError(f"{settings.where}: composition_mode 'scale' with r={rank}; the library takes r=1 alone.")
    spec = (
        Spec(LowRank(rank=rank, dropout=settings.number("dropout")), alpha / rank)
        if mode == "add"
        else Spec(Rescale(), 1.0)
    )
    specs: dict[str, Spec] = {}
    values: dict[str, dict[str, Tensor]] = {}
    for path, sites in layout.projections().items():
        chosen = [site for site in sites if asked(settings, layout, site)]
        if not chosen:
            continue
        if mode == "scale" and alpha != 1 and len(sites) > 1:
            raise InteropError(
                f"{settings.where}: alpha={alpha:g} of (IA)^3 at the fused {path!r} multiplies its other features too."
            )
        up = pool.take(f"{path}.loras.{pool.name}.lora_B")
        down = pool.take(f"{path}.loras.{pool.name}.lora_A") if mode == "add" else None
        for place, site in enumerate(chosen):
            outer = _features(site)
            here = up[place * outer : (place + 1) * outer]
            specs[site.name] = spec
            if down is None:
                values[site.name] = {"factor": here.flatten() * alpha}
            else:
                values[site.name] = {"down": down[place * rank : (place + 1) * rank], "up": here}
        if up.shape[0] != sum(_features(site) for site in chosen):
            raise InteropError(f"{pool.where}: lora_B of {path!r} has shape {tuple(up.shape)}, which does not fit.")
    if not specs:
        raise InteropError(f"{settings.where}: these settings name no module of this model.")
    return specs, values


def asked(settings: Settings, layout: Layout, site: Site) -> bool:
    """Return whether a LoRA with these settings reaches a projection."""
    location = layout.lora_location(site)
    if location is None or layout.layer(site) in settings.left_out() or not settings.flag(location[0]):
        return False
    letters = settings.values["attn_matrices"]
    if not isinstance(letters, list) or any(one not in _LETTERS for one in letters):
        raise InteropError(f"{settings.where}: attn_matrices {letters!r}; expected some of {', '.join(_LETTERS)}.")
    return location[1] is None or location[1] in letters


def _features(site: Site) -> int:
    assert isinstance(site.shape, Features)
    return site.shape.out_features
