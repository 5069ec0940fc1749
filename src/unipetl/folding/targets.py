"""Which weights a change could fold into, and why some changes fold into none.

This is the mathematics alone: what else is attached, and what the weights are stored as, is looked at elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from unipetl.architectures import Port, Site, Stacked, join_path
from unipetl.composition import Gate
from unipetl.errors import PlanError
from unipetl.folding.steps import Op
from unipetl.forms import Bottleneck, HeadAttention
from unipetl.insertion import Parallel
from unipetl.planning.units import FeedForward, feed_forward_at
from unipetl.representation import PROJECTIONS

#: ``output`` and ``input``: the affine map of a linear module, after and before it. ``norm``: a norm's weight and
#: bias. ``units``: the hidden units of an FFN.
Side = Literal["output", "input", "norm", "units"]
_LAST = {"attention": "attention.output", "ffn": "ffn.down"}


@dataclass(frozen=True)
class Target:
    """Where a change folds: a module, by its path, and which side of it."""

    module: str
    side: Side


class Anatomy:
    """Looks up, in one model, what stands where."""

    def __init__(self, model: nn.Module, sites: Sequence[Site]) -> None:
        self.model = model
        self.sites = tuple(sites)
        self._by_place = {(s.stack.stack, s.layer, s.kind, s.inside, s.expert, s.representation): s for s in self.sites}
        self._ffns: dict[tuple[str, int], FeedForward | str] = {}
        self._same: dict[tuple[str, str], str | None] = {}

    def beside(self, site: Site, representation: str) -> Site | None:
        """Return the site of ``representation`` in the same sub-layer; inside a mixture, of the same expert."""
        kind = site.kind if representation.startswith("attention") else None
        return self._by_place.get((site.stack.stack, site.layer, kind, site.inside, site.expert, representation))

    def stacked_at(self, path: str) -> Stacked:
        """Return how the parameter at ``path`` holds the matrices of experts."""
        return next(s.stacked for s in self.sites if s.stacked is not None and s.value.module == path)

    def feed_forward(self, site: Site) -> FeedForward | str:
        """Return the FFN of the layer of ``site``, or why it cannot be told."""
        place = (site.stack.stack, site.layer)
        if place not in self._ffns:
            try:
                self._ffns[place] = feed_forward_at(self.model, site, self.sites)
            except PlanError as error:
                self._ffns[place] = str(error)
        return self._ffns[place]

    def last_projection(self, site: Site) -> str | None:
        """Return the linear module that ends the sub-layer of ``site``."""
        last = self.beside(site, _LAST[site.representation])
        return None if last is None else last.value.module

    def passes_through(self, port: Port, linear: str) -> str | None:
        """Return why what is changed at ``port`` is not the result of ``linear`` in evaluation, or None if it is."""
        key = (port.module, linear)
        if key not in self._same:
            self._same[key] = self._why_not_same(port, linear)
        return self._same[key]

    def _why_not_same(self, port: Port, linear: str) -> str | None:
        module = self.model.get_submodule(port.module)
        if port.module == linear or isinstance(module, nn.Dropout):
            return None
        if linear.startswith(f"{port.module}.") and _ends_in(module, self.model.get_submodule(linear)):
            return None
        return f"between {linear!r} and what is changed stands {type(module).__name__}"


def _ends_in(module: nn.Module, linear: nn.Module) -> bool:
    """Return whether a module's result is its inner linear module's, tried on random numbers."""
    seen: list[torch.Tensor] = []
    weight = next((p for p in module.parameters() if p.is_floating_point()), None)
    width = getattr(linear, "out_features", getattr(linear, "nf", 0))
    if weight is None or not width:
        return False
    handle = linear.register_forward_hook(lambda _module, _args, output: seen.append(output))
    modes = [(one, one.training) for one in module.modules()]
    try:
        module.eval()
        with torch.no_grad():
            generator = torch.Generator().manual_seed(0)
            x = torch.randn(1, 2, width, generator=generator).to(device=weight.device, dtype=weight.dtype)
            result = module.forward(x)
    except (TypeError, RuntimeError, ValueError):
        return False
    finally:
        handle.remove()
        for one, training in modes:
            one.training = training
    result = result[0] if isinstance(result, tuple) else result
    return bool(seen) and isinstance(result, torch.Tensor) and torch.equal(result, seen[-1])


def target_of(op: Op, anatomy: Anatomy) -> Target | str:
    """Return what a change folds into, or the reason why it folds into nothing."""
    site, name = op.placement.site, op.representation
    if op.kind in ("heads", "prompt"):
        return _inside_attention(op)
    if op.kind == "other":
        return _unknown(op)
    form = op.placement.modification.form
    if site.stacked is not None and op.kind == "linear" and isinstance(form, Bottleneck) and form.bias:
        return "it adds a bias, for which the experts' parameters have no place"
    if name in PROJECTIONS or name == "embedding":
        return _affine_only(op) or Target(site.value.module, "output")
    if name in ("attention.heads", "ffn.hidden"):
        if op.parallel:
            return f"it reads the sub-layer's input, from which no weight computes {name!r} linearly"
        return _affine_only(op) or Target(site.value.module, "input")
    if name in _LAST and not op.parallel:
        linear = anatomy.last_projection(site)
        if linear is None:
            return f"no linear module ends this {name!r}"
        return _affine_only(op) or anatomy.passes_through(site.value, linear) or Target(linear, "output")
    if name == "ffn":
        return _as_units(op, anatomy)
    if name == "attention":
        return "it reads the attention's input, and folding knows no weight that reads it and adds to the result"
    if name == "block" and op.kind == "factor":
        residual = anatomy.beside(site, "ffn.residual")
        norm = None if residual is None else residual.norm_after
        if norm is not None and type(anatomy.model.get_submodule(norm)) is nn.LayerNorm:
            return Target(norm, "norm")
    return f"{name!r} is the residual stream, which is no weight's result"


def _inside_attention(op: Op) -> str:
    one = op.placement.modification
    if not isinstance(one.form, HeadAttention):
        return "its vectors lengthen the sequence, and no weight does"
    if isinstance(one.composition, Gate):
        return "its learned keys share a softmax with the text's own, and no weight computes a softmax"
    return "it attends with the layer's own queries beside the attention, and no weight of the model does that"


def _unknown(op: Op) -> str:
    one = op.placement.modification
    if isinstance(one.form, Bottleneck) and one.form.layer_norm != "none":
        return f"its own layer norm ({one.form.layer_norm!r}) is computed from each token, and no weight does"
    if isinstance(one.insertion, Parallel):
        return f"folding does not know the form {one.form.tag!r}"
    return f"folding does not know {one.form.tag!r} with insertion {one.insertion.plain()!r}"


def _affine_only(op: Op) -> str | None:
    if op.kind != "bottleneck":
        return None
    form = op.placement.modification.form
    assert isinstance(form, Bottleneck)
    return (
        f"its activation ({'gated ' if form.gated else ''}{form.activation}) makes it no linear map, and what it "
        "changes is the result of one"
    )


def _between(model: nn.Module, ffn: FeedForward) -> str | None:
    """Return a module beside the FFN's projections whose parameters are one for each unit (a norm), or None."""
    parent, width = ffn.down.rpartition(".")[0], ffn.width
    if width in (ffn.reads, ffn.writes):
        return None  # a norm of the residual stream would look the same
    for name, module in model.get_submodule(parent).named_children():
        parameters = list(module.parameters())
        if parameters and all(one.numel() == width == one.shape[-1] for one in parameters):
            return join_path(parent, name)
    return None


def _as_units(op: Op, anatomy: Anatomy) -> Target | str:
    site, insertion = op.placement.site, op.placement.modification.insertion
    assert isinstance(insertion, Parallel)
    ffn = anatomy.feed_forward(site)
    if isinstance(ffn, str):
        return ffn
    if not (ffn.separate or ffn.fused):
        return f"{ffn.up!r} computes more than the FFN's projections, and cannot be widened"
    owner = anatomy.model.get_submodule(ffn.down.rpartition(".")[0])
    if getattr(owner, "activation_sparsity", 0):  # Gemma 3n
        return f"{type(owner).__name__} keeps only units far above the mean of all, and would count the new units too"
    between = _between(anatomy.model, ffn)
    if between is not None:
        return f"{between!r} stands between the FFN's units and {ffn.down!r}, and would see the new units too"
    if insertion.reads == "residual" and site.residual != site.normed:
        return "it reads the residual stream before the norm, and the FFN's units read it after"
    if op.kind == "factor":
        return "a factor does not read the FFN's input"
    ends = anatomy.passes_through(site.value, ffn.down)
    if ends is not None:
        return ends
    form = op.placement.modification.form
    own_gate = isinstance(form, Bottleneck) and form.gated
    if own_gate and ffn.gate is None:
        return "it is gated and the FFN is not"
    return Target(ffn.down, "units")
