"""What a layer's FFN is made of, read off the model: its projections, its activation, and whether it has biases.

The activation is told by what it computes, not by its class or the config's word for it: transformers has
several classes for one function.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unipetl.architectures import Columns, Site
from unipetl.errors import PlanError
from unipetl.forms import Bottleneck, Features
from unipetl.forms.bottleneck import ACTIVATIONS, Activation
from unipetl.method import Modification


@dataclass(frozen=True, slots=True)
class FeedForward:
    """The FFN of one layer; paths of its modules.

    Attributes:
        activation_path: the module that computes σ.
        activation: its name among the bottleneck's, or None where it is none of them.
        width: the number of hidden units; ``reads`` and ``writes`` the sizes of the FFN's input and result.
        parts: for ``up`` and ``gate`` the features of their module that they are; None is all of them.
        biases: whether ``up``, ``gate`` (if there is one) and ``down`` have biases.
    """

    up: str
    gate: str | None
    down: str
    activation_path: str
    activation: Activation | None
    width: int
    reads: int
    writes: int
    parts: tuple[Columns | None, Columns | None]
    biases: tuple[bool, ...]

    @property
    def projections(self) -> tuple[str, ...]:
        """The paths of the modules, each once: ``up`` and ``gate`` may be one."""
        return tuple(dict.fromkeys((self.up, *([self.gate] if self.gate else []), self.down)))

    @property
    def fused(self) -> bool:
        """Whether ``up`` and ``gate`` are the two halves, in either order, of one module."""
        up, gate = self.parts
        if up is None or gate is None or self.up != self.gate:
            return False
        return sorted((one.start, one.features, one.count) for one in (up, gate)) == [
            (0, self.width, 1),
            (self.width, self.width, 1),
        ]

    @property
    def separate(self) -> bool:
        """Whether every projection is a module of its own."""
        return self.parts == (None, None)


def feed_forward_at(model: nn.Module, site: Site, sites: Sequence[Site]) -> FeedForward:
    """Return the FFN of the layer that ``site`` is in.

    Raises:
        PlanError: the layer has no FFN of two or three projections, or no module that is its activation.
    """
    place = (site.layer, site.stack.stack, site.inside, site.expert)
    if site.stacked is not None:
        raise PlanError("activation 'model': the experts' activation is inside them; name one.")
    inside = {
        one.representation: one
        for one in sites
        if (one.layer, one.stack.stack, one.inside, one.expert) == place and one.representation.startswith("ffn.")
    }
    up, down, gate = inside.get("ffn.up"), inside.get("ffn.down"), inside.get("ffn.gate")
    if up is None or down is None:
        raise PlanError(f"layer {site.layer} of the {site.stack.stack} has no FFN of two projections.")
    path = _activation_path(model, up.value.module)
    paths = [one.value.module for one in (up, gate, down) if one is not None]
    assert isinstance(up.shape, Features)
    assert isinstance(down.shape, Features)
    return FeedForward(
        up=up.value.module,
        gate=gate.value.module if gate else None,
        down=down.value.module,
        activation_path=path,
        activation=activation_name(model.get_submodule(path)),
        width=up.shape.out_features,
        reads=up.shape.in_features,
        writes=down.shape.out_features,
        parts=(up.value.columns, gate.value.columns if gate else None),
        biases=tuple(getattr(model.get_submodule(one), "bias", None) is not None for one in paths),
    )


def settle(one: Modification, model: nn.Module, site: Site, sites: Sequence[Site]) -> Modification:
    """Return the modification with ``activation='model'`` replaced by what the layer's FFN has.

    Raises:
        PlanError: the FFN's activation cannot be told, or is none that a bottleneck can have.
    """
    form = one.form
    if not isinstance(form, Bottleneck) or form.activation != "model":
        return one
    found = feed_forward_at(model, site, sites)
    if found.activation is None:
        raise PlanError(
            f"activation 'model': {type(model.get_submodule(found.activation_path)).__name__} at "
            f"{found.activation_path!r} is none of {', '.join(ACTIVATIONS)}; name one of these."
        )
    settled = form.settled(found.activation, gated=found.gate is not None, bias=all(found.biases))
    return Modification(
        representation=one.representation, form=settled, insertion=one.insertion, composition=one.composition
    )


def activation_name(module: nn.Module) -> Activation | None:
    """Return which of the bottleneck's activations ``module`` computes, or None."""
    grid = torch.linspace(-6, 6, 241, dtype=torch.float64)
    try:
        with torch.no_grad():
            values = module.forward(grid)
    except (TypeError, RuntimeError, ValueError):
        return None
    if not isinstance(values, Tensor) or values.shape != grid.shape:
        return None
    for name, function in ACTIVATIONS.items():
        if torch.allclose(values.double(), function(grid), rtol=1e-9, atol=1e-9):
            return name  # type: ignore[return-value]
    return None


#: What models call the module of an activation.
_WORDS = ("act", "gelu", "relu", "silu", "swish")


def _activation_path(model: nn.Module, up: str) -> str:
    """Return the path of the module beside ``up`` that is its activation: without parameters, and named for it."""
    owner, _, _ = up.rpartition(".")
    parent = model.get_submodule(owner)
    named = [
        name
        for name, child in parent.named_children()
        if any(word in name for word in _WORDS) and "drop" not in name and next(child.parameters(), None) is None
    ]
    if len(named) != 1:
        found = f"found {', '.join(named)}" if named else "found none"
        raise PlanError(f"the activation of the FFN at {owner!r} cannot be told: expected one module of it, {found}.")
    return f"{owner}.{named[0]}" if owner else named[0]
