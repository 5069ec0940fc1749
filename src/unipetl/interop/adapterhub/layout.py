"""Where AdapterHub keeps its modules in each family, and which places of ours these are.

The library names them by their path in the model as transformers 4.57 has it. Paths here are relative to the base model
(``encoder.layer.0...``), since a file of a classifier has the base's name in front and one of a bare model has not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from unipetl.architectures import Site
from unipetl.errors import InteropError
from unipetl.interop.peft.names import Places
from unipetl.representation import PROJECTIONS

#: The library's names for where bottlenecks are.
ATTENTION, FEED_FORWARD, CROSS = "mh_adapter", "output_adapter", "cross_adapter"


@dataclass(frozen=True)
class Family:
    """One family's paths.

    Attributes:
        block: a layer, with its ``{stack}`` and ``{layer}``.
        attention, feed_forward, cross: the modules that hold bottlenecks, inside a layer; ``decoder`` is
            ``feed_forward`` in a decoder, where that is another.
        projections: representation -> path inside a layer, where transformers 5 calls it otherwise.
        prefix: the prefix's name in a model of one stack; None if there is none to exchange.
        no_prefix: why there is none.
        swapped: whether the library calls the last FFN projection ``intermediate`` and the first ``output``.
        hooked: whether the library hooks on the family's own code: then LoRA reaches the attention's output
            projection, and the model's residual connection cannot be taken over by a bottleneck.
    """

    block: str
    attention: str = "attention_adapters"
    feed_forward: str = "output_adapters"
    cross: str | None = None
    decoder: str | None = None
    projections: Mapping[str, str] = field(default_factory=dict)
    prefix: str | None = "self_prefix"
    no_prefix: str = "the library has no prefix for this family"
    swapped: bool = False
    hooked: bool = False


_BERT = Family("encoder.layer.{layer}", "attention.output", "output")
_BART = Family("{stack}.layers.{layer}", cross="cross_attention_adapters")
_LLAMA = Family("layers.{layer}", swapped=True)
_HOOKED = Family("layers.{layer}", prefix=None, hooked=True)
_VIT = Family(
    "encoder.layer.{layer}",
    feed_forward="output.output_adapters",
    projections={
        "attention.query": "attention.attention.query",
        "attention.key": "attention.attention.key",
        "attention.value": "attention.attention.value",
        "ffn.up": "intermediate.dense",
        "ffn.down": "output.dense",
    },
)
FAMILIES: dict[str, Family] = {
    "bert": _BERT, "roberta": _BERT, "xlm-roberta": _BERT,
    "distilbert": Family("transformer.layer.{layer}", prefix="self"),
    "bart": _BART, "mbart": _BART,
    "t5": Family(
        "{stack}.block.{layer}.layer", "0", "1", cross="1", decoder="2", prefix=None,
        no_prefix="there the library counts a prefix's positions among the keys' and not among the queries', so that "
        "the relative position bias between any two tokens is that of tokens further apart by the prefix's length; "
        "unipetl's prefix moves no position, and is another function",
    ),
    "gpt2": Family("h.{layer}"),
    "llama": _LLAMA, "mistral": _LLAMA, "qwen2": _HOOKED, "qwen3": _HOOKED, "vit": _VIT,
}  # fmt: skip


@dataclass(frozen=True)
class Holder:
    """A module that holds bottlenecks: its path, where it is, and the layer counted through all stacks."""

    path: str
    location: str
    layer: int
    stack: str
    stack_layer: int


class Layout:
    """The library's modules in one model."""

    def __init__(self, model: nn.Module) -> None:
        config: Any = getattr(model, "config", None)
        kind = str(getattr(config, "model_type", type(model).__name__))
        if kind not in FAMILIES:
            raise InteropError(f"AdapterHub files of {kind!r} are not known here; known are {', '.join(FAMILIES)}.")
        self.model, self.kind, self.family = model, kind, FAMILIES[kind]
        self.width = int(config.hidden_size)
        self.places = Places(model)
        self.sites = self.places.sites
        self.depths: dict[str, int] = {}
        for site in self.sites:
            if site.representation != "input":
                self.depths[site.stack.stack] = max(self.depths.get(site.stack.stack, 0), site.layer + 1)
        self.holders = [one for stack, depth in self.depths.items() for one in self._holders(stack, depth)]

    def layer(self, site: Site) -> int:
        """Return a site's layer as the library counts: a decoder's go on after the encoder's."""
        return self._before(site.stack.stack) + site.layer

    def projections(self) -> dict[str, list[Site]]:
        """Return the linear modules by their path, with the places each of them is."""
        found: dict[str, list[Site]] = {}
        for site in self.sites:
            if site.representation in PROJECTIONS:
                found.setdefault(self._projection(site), []).append(site)
        return found

    def lora_location(self, site: Site) -> tuple[str, str | None] | None:
        """Return the setting that gives a projection a LoRA, and its letter if that is ``selfattn_lora``; or None."""
        letter = {"attention.query": "q", "attention.key": "k", "attention.value": "v"}.get(site.representation)
        if site.representation == "attention.output" and self.family.hooked:
            letter = "o"
        if letter:
            fused_cross = self.kind == "gpt2" and site.kind == "cross"
            return None if fused_cross else ("selfattn_lora", letter)
        ends = ("ffn.up", "ffn.down") if not self.family.swapped else ("ffn.down", "ffn.up")
        location = dict(zip(ends, ("intermediate_lora", "output_lora"), strict=True)).get(site.representation)
        return None if location is None else (location, None)

    def prefix_sets(self) -> dict[str, list[Site]]:
        """Return the attentions that share a prefix, by the prefix's name, in the order of the layers."""
        found: dict[str, list[Site]] = {}
        alone = self.family.prefix
        for site in self.sites:
            if alone is None or site.representation != "attention.heads":
                continue
            if site.kind == "cross":
                name = "cross_prefix"
            elif len(self.depths) > 1 and site.stack.stack == "encoder":
                name = "encoder_prefix"
            else:
                name = alone
            found.setdefault(name, []).append(site)
        return found

    def relative(self, key: str) -> str:
        """Return a tensor's name without the name of the base model in front."""
        roots = (self.family.block.format(stack=stack, layer="") for stack in ("encoder", "decoder"))
        starts = (*(root.partition("..")[0].rstrip(".") + "." for root in roots), "prefix_tuning.")
        if key.startswith(starts):
            return key
        shorter = key.partition(".")[2]
        return shorter if shorter.startswith(starts) else key

    def prefixed(self, key: str) -> str:
        """Return a name with the base model's in front, as the library writes it for this model's class."""
        return f"{self.places.base}.{key}" if self.places.base else key

    def _before(self, stack: str) -> int:
        return self.depths.get("encoder", 0) if stack == "decoder" else 0

    def _holders(self, stack: str, depth: int) -> list[Holder]:
        family, found = self.family, []
        for layer in range(depth):
            block = family.block.format(stack=stack, layer=layer)
            last = family.decoder if stack == "decoder" and family.decoder else family.feed_forward
            ends = {ATTENTION: family.attention, FEED_FORWARD: last}
            if family.cross and any(s.kind == "cross" and s.stack.stack == stack for s in self.sites):
                ends[CROSS] = family.cross
            found += [
                Holder(f"{block}.{end}", location, self._before(stack) + layer, stack, layer)
                for location, end in ends.items()
            ]
        return found

    def site(self, holder: Holder, representation: str) -> Site:
        """Return the place of ours for a representation of a holder's layer."""
        kind = {ATTENTION: "self", CROSS: "cross"}.get(holder.location) if representation == "attention" else None
        for site in self.sites:
            here = (site.stack.stack, site.layer, site.representation)
            if here == (holder.stack, holder.stack_layer, representation) and site.kind == kind:
                return site
        raise InteropError(f"{self.kind}: layer {holder.stack_layer} has no {representation!r}.")

    def _projection(self, site: Site) -> str:
        renamed = self.family.projections.get(site.representation)
        if renamed is not None:
            return f"{self.family.block.format(stack=site.stack.stack, layer=site.layer)}.{renamed}"
        return site.value.module.removeprefix(f"{self.places.base}.") if self.places.base else site.value.module
