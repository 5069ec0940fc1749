"""Changes inside a mixture of experts whose matrices are parameters: at every product that the experts make.

While a module of experts computes, a [StackedMatrices][unipetl.architectures.stacked.StackedMatrices] stands in its
``__dict__`` before the parameter of that name. The parameter stays where it is, and whatever implementation of experts
is in force stays in force: it multiplies as it would, and each product is changed by the expert's own change.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from torch import Tensor, nn

from unipetl.architectures.stacked import StackedMatrices
from unipetl.attaching.hooks import Hooks
from unipetl.attaching.ports import Change, InputHook, Item, OutputHook, Step
from unipetl.composition import Multiply
from unipetl.errors import AttachError
from unipetl.forms import ExpertsDelta, Visit
from unipetl.method import Modification

#: Implementations of experts whose kernels read the parameters themselves.
KERNELS = ("deepgemm", "sonicmoe")


@dataclass
class Products:
    """What happens to the products with one parameter: changes to what is read, and to what is computed."""

    before: InputHook = field(default_factory=InputHook)
    after: OutputHook = field(default_factory=OutputHook)

    def __call__(self, x: Tensor, visit: Visit, multiply: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the changed product (..., out) of x (..., in)."""
        for step in self.before.steps:
            x = _visiting(step, visit).apply(x, None)
        for tape in self.before.tapes:
            tape.see(x)
        h = multiply(x)
        for step in self.after.steps:
            h = _visiting(step, visit).apply(h, x)
        for tape in self.after.tapes:
            tape.see(h)
        return h


@dataclass
class BeginExperts:
    """Forward pre-hook of a module of experts: puts stand-ins before its parameters."""

    products: dict[str, Products] = field(default_factory=dict)

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        """Let the module's code find the stand-ins.

        Raises:
            AttachError: the experts are computed by a kernel of their own.
        """
        chosen = getattr(getattr(module, "config", None), "_experts_implementation", None)
        if chosen in KERNELS:
            raise AttachError(
                f"{type(module).__name__}: the experts implementation {chosen!r} is one kernel, and nothing can be "
                'changed inside it. model.set_experts_implementation("grouped_mm") computes the same.'
            )
        for name, products in self.products.items():
            weight = module._parameters[name]
            assert weight is not None
            module.__dict__[name] = StackedMatrices(weight, products, name)


@dataclass
class EndExperts:
    """Forward hook of a module of experts: takes the stand-ins away again, also after a failure."""

    begin: BeginExperts

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """Take them away."""
        for name in self.begin.products:
            module.__dict__.pop(name, None)


EXPERT_HOOKS = (BeginExperts, EndExperts)


def install_experts(model: nn.Module, hooks: Hooks, ends: dict[tuple[str, str], InputHook | OutputHook]) -> None:
    """Register the hooks of the parameters that are named like modules: path of owner and name, and which end."""
    owners: dict[str, BeginExperts] = {}
    for (path, _), hook in ends.items():
        owner, _, name = path.rpartition(".")
        products = owners.setdefault(owner, BeginExperts()).products.setdefault(name, Products())
        if isinstance(hook, InputHook):
            products.before = hook
        else:
            products.after = hook
    for owner, begin in owners.items():
        module = model.get_submodule(owner)
        hooks.before(module, begin)
        hooks.after(module, EndExperts(begin), always=True)
        for name in begin.products:
            hooks.stand_in(module, name)


@dataclass
class _AtExperts:
    """A change as the experts of one product have it."""

    change: Change
    visit: Visit

    @property
    def modification(self) -> Modification:
        return self.change.modification

    def delta(self, x: Tensor) -> Tensor:
        assert isinstance(self.change.delta, ExpertsDelta)
        multiplies = isinstance(self.modification.composition, Multiply)
        result: Tensor = self.change.delta(x, self.visit, 1.0 if multiplies else 0.0)
        return result

    def added(self, h: Tensor, x: Tensor, *, in_place: bool = False) -> Tensor:
        del in_place  # the result of a product over all experts may be part of another
        return self.change.add_to(h, self.delta(x))


def _visiting(step: Step, visit: Visit) -> Step:
    items = [Item(cast(Change, _AtExperts(one.change, visit)), one.tape, one.own_input) for one in step.items]
    return Step(step.rank, items, step.columns)
