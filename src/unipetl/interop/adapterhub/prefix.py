"""Prefixes in files of AdapterHub: one set of keys and values for each stack and kind of attention.

Of a model of one stack there is one set; of an encoder-decoder model there are three (``encoder_prefix``,
``self_prefix``, ``cross_prefix``), of which the decoder's own cannot be left away. A set is a table and an MLP that
make the keys and values of every layer, or (``flat``) those numbers: (l, 2 * layers, heads, size), keys first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from unipetl.architectures import Site
from unipetl.composition import Gate
from unipetl.errors import InteropError
from unipetl.forms import HeadAttention, Heads, Mlp
from unipetl.insertion import Parallel
from unipetl.interop.adapterhub.layout import Layout
from unipetl.interop.adapterhub.pool import Pool
from unipetl.interop.adapterhub.settings import Settings
from unipetl.method import Modification

#: The MLP's parameters: the file's name and ours.
PARTS = {
    "wte.weight": "embedding", "control_trans.0.weight": "hidden", "control_trans.0.bias": "hidden_bias",
    "control_trans.2.weight": "out", "control_trans.2.bias": "out_bias",
}  # fmt: skip


@dataclass(frozen=True)
class Spec:
    """What the file wants at one place: everything of a modification but the place."""

    form: HeadAttention

    def at(self, representation: Mapping[str, Any]) -> Modification:
        """Return the modification at a place."""
        return Modification(
            representation=dict(representation), form=self.form, insertion=Parallel(), composition=Gate()
        )


def read_prefix(
    settings: Settings, layout: Layout, pool: Pool
) -> tuple[dict[str, Spec], dict[str, dict[str, Tensor]], dict[str, dict[str, Tensor]]]:
    """Return what a prefix's settings want at every site, the values there, and those that sites share.

    Raises:
        InteropError: the library has no prefixes of this family, or a tensor is missing or misshapen.
    """
    flat, length = settings.flag("flat"), settings.whole("prefix_length")
    if not flat and settings.word("non_linearity").lower() != "tanh":
        raise InteropError(
            f"{settings.where}: non_linearity {settings.values['non_linearity']!r}; the MLP of unipetl's prefixes has "
            "tanh. model.eject_prefix_tuning(name) of the library makes it a flat prefix, which has none."
        )
    form = HeadAttention(
        length=length,
        dropout=settings.number("dropout"),
        reparametrization=None if flat else Mlp(width=settings.whole("bottleneck_size")),
    )
    specs: dict[str, Spec] = {}
    values: dict[str, dict[str, Tensor]] = {}
    shared: dict[str, dict[str, Tensor]] = {}
    for name, sites in chosen_sets(settings, layout).items():
        found = pool.take_copies("prefix_tunings", name)
        specs |= {site.name: Spec(form) for site in sites}
        if flat:
            values |= _direct(found, sites, length, pool)
        else:
            missing = sorted(set(PARTS) ^ set(found))
            if missing:
                raise InteropError(f"{pool.where}: {missing[0]!r} of the prefix {name!r} is missing or left over.")
            shared[sites[0].name] = {ours: found[theirs] for theirs, ours in PARTS.items()}
    if not specs:
        reason = "these settings leave every place out" if layout.family.prefix else layout.family.no_prefix
        raise InteropError(f"{settings.where}: no prefix of a {layout.kind}: {reason}.")
    return specs, values, shared


def chosen_sets(settings: Settings, layout: Layout) -> dict[str, list[Site]]:
    """Return the attentions that get a prefix with these settings, by the name of the set."""
    found = {}
    for name, sites in layout.prefix_sets().items():
        if name in ("encoder_prefix", "cross_prefix") and not settings.flag(name):
            continue
        left = [site for site in sites if layout.layer(site) not in settings.left_out()]
        if left:
            found[name] = left
    return found


def _direct(found: Mapping[str, Tensor], sites: list[Site], length: int, pool: Pool) -> dict[str, dict[str, Tensor]]:
    shape = sites[0].shape
    assert isinstance(shape, Heads)
    width = shape.key_heads * shape.key_dim
    if set(found) != {"control_trans"} or found["control_trans"].numel() != length * 2 * len(sites) * width:
        raise InteropError(
            f"{pool.where}: a flat prefix of {length} positions for {len(sites)} layers of {shape.key_heads} heads of "
            f"size {shape.key_dim} has {length * 2 * len(sites) * width} numbers; found "
            f"{ {part: tuple(one.shape) for part, one in found.items()} }."
        )
    both = found["control_trans"].view(length, len(sites), 2, width)
    return {site.name: {"key": both[:, index, 0], "value": both[:, index, 1]} for index, site in enumerate(sites)}
