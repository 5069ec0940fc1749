"""The design space as choices: which values an axis may have, given what is chosen already and what makes sense.

A point changes the attention, the FFN, or both. For each it has a value on every axis of the paper; where it changes
both, a part of the budget goes to the attention. A combination that makes no sense, or that the model has no place
for, is never offered: after every choice only those values of the next axis remain with which a sound point exists.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from torch import nn

from unipetl.composition import Add, Composition, Gate
from unipetl.errors import PlanError, RunError, unknown
from unipetl.experiment.marked import Fault, fault
from unipetl.forms import Bottleneck, Form, HeadAttention, LowRank, Prompt
from unipetl.insertion import Insertion, Parallel, Sequential
from unipetl.method import Method, Modification
from unipetl.planning import plan
from unipetl.representation import NAMES, Representation
from unipetl.sense import refuse_nonsense

FORMS: dict[str, Callable[[int], Form]] = {
    "bottleneck": lambda size: Bottleneck(rank=size),
    "low_rank": lambda size: LowRank(rank=size),
    "prefix": lambda size: HeadAttention(length=size, activation="softmax"),
    "multi_head": lambda size: HeadAttention(length=size, activation="relu", init="lora"),
    "prompt": lambda size: Prompt(length=size),
}
INSERTIONS: dict[str, Insertion] = {"parallel": Parallel(), "sequential": Sequential()}
COMPOSITIONS = ("add", "gate")
#: Forms whose size makes sequences or prefixes longer: more of it costs time rather than parameters.
LENGTHS = ("prefix", "multi_head", "prompt")
LARGEST, LONGEST = 4096, 512
HALVES = ("all", "lower half", "upper half")
NONE = "–"

Scale = float | Literal["learned"]


def _places(value: Any) -> Any:
    names = [value] if isinstance(value, str) else value
    for at, one in enumerate(names if isinstance(names, (list, tuple)) else ()):
        for name in str(one).split("+"):
            if name.strip() not in NAMES:
                raise fault(Fault((at,), unknown("representation", name.strip(), NAMES)))
    return names


class Space(BaseModel):
    """The values that may be chosen.

    Args:
        where: the sub-layers that are changed.
        representation: names of representations; ``a + b`` changes two alike. Those of the attention (and ``input``)
            are for its part, the others for the FFN's.
        form: the functional form: ``prefix`` and ``multi_head`` are learned keys and values in every head, with
            softmax and with ReLU.
        insertion, composition: the other axes.
        scale: the factor on what is added.
        stack: ``all``, or the names of the model's stacks; None is all of these.
        layers: all, or half of them.
        split: the attention's part of the budget, where both sub-layers are changed.
        learning_rate: learning rates to choose from; none leaves the training arguments' own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    where: tuple[Literal["attention", "ffn", "both"], ...] = ("attention", "ffn", "both")
    representation: Annotated[tuple[str, ...], BeforeValidator(_places)] = (
        "attention",
        "attention.heads",
        "attention.query + attention.value",
        "input",
        "ffn",
        "ffn.up + ffn.down",
        "block",
    )
    form: tuple[Literal["bottleneck", "low_rank", "prefix", "multi_head", "prompt"], ...] = (
        "bottleneck",
        "low_rank",
        "prefix",
        "multi_head",
        "prompt",
    )
    insertion: tuple[Literal["parallel", "sequential"], ...] = ("parallel", "sequential")
    composition: tuple[Literal["add", "gate"], ...] = ("add", "gate")
    scale: tuple[Scale, ...] = (1.0, 4.0, "learned")
    stack: tuple[str, ...] | None = None
    layers: tuple[Literal["all", "lower half", "upper half"], ...] = ("all", "upper half")
    split: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.1, 0.25, 0.5, 0.75, 0.9)
    learning_rate: tuple[Annotated[float, Field(gt=0)], ...] = ()


@dataclass(frozen=True)
class Shape:
    """A change without its size: a value on every axis of one sub-layer."""

    representation: str
    form: str
    insertion: str
    composition: str

    @property
    def part(self) -> str:
        """The sub-layer: ``attention`` or ``ffn``."""
        return "attention" if self.representation.startswith(("attention", "input")) else "ffn"

    @property
    def largest(self) -> int:
        """The largest size that is tried."""
        return LONGEST if self.form in LENGTHS else LARGEST

    def modifications(self, size: int, scale: Scale, spans: Sequence[dict[str, Any]]) -> Iterator[Modification]:
        """Return the change as modifications, in the spans of layers that it is for."""
        composition: Composition = Gate() if self.composition == "gate" else Add(scale=scale)
        for name in (one.strip() for one in self.representation.split("+")):
            for span in spans if name != "input" else ({},):
                yield Modification(
                    representation=Representation(name=name, **span),
                    form=FORMS[self.form](size),
                    insertion=INSERTIONS[self.insertion],
                    composition=composition,
                )


@dataclass(frozen=True)
class Point:
    """A point of the space: what was chosen on every axis, and the changes that follow; their sizes are still open."""

    axes: dict[str, Any]
    parts: tuple[tuple[Shape, Scale], ...]
    spans: tuple[dict[str, Any], ...]
    split: float | None
    learning_rate: float | None

    def method(self, sizes: Sequence[int]) -> Method:
        """Return the method with a size for every part."""
        return Method(modifications=[one for at, size in enumerate(sizes) for one in self._part(at, size)])

    def part(self, at: int, size: int) -> Method:
        """Return one part alone."""
        return Method(modifications=list(self._part(at, size)))

    def _part(self, at: int, size: int) -> Iterator[Modification]:
        shape, scale = self.parts[at]
        return shape.modifications(size, scale, self.spans)


Pick = Callable[[str, Sequence[Any]], Any]


class Choices:
    """The choices of a space on a model.

    Args:
        space: the values that may be chosen.
        model: a model on any device, the meta device too.
        budget: what a method may add at most; a change that is larger even at its smallest size is not offered.

    Raises:
        RunError: nothing in the space makes sense on this model within the budget.
    """

    def __init__(self, space: Space, model: nn.Module, budget: int) -> None:
        self.space = space
        self.layers: dict[str, int] = {}
        shapes, reasons = [], []
        for values in product(space.representation, space.form, space.insertion, space.composition):
            shape = Shape(*values)
            try:
                cost = self._cost(shape, model)
            except PlanError as error:
                reasons.append(str(error))
                continue
            if cost > budget:
                reasons.append(f"{', '.join(values)}: {cost:,} parameters at its smallest, more than {budget:,}.")
                continue
            shapes.append(shape)
        self.shapes = tuple(shapes)
        parts = {shape.part for shape in shapes}
        self.where = [one for one in space.where if ({"attention", "ffn"} if one == "both" else {one}) <= parts]
        if not self.where:
            raise RunError(
                f"nothing in the space makes sense here within {budget:,} parameters. {' '.join(reasons[:3])}"
            )
        given = space.stack or ("all", *(self.layers if len(self.layers) > 1 else ()))
        for name in given:
            if name != "all" and name not in self.layers:
                raise RunError(f"space.stack: {unknown('stack', name, ['all', *self.layers])}")
        self.stacks = given

    def draw(self, pick: Pick) -> Point:
        """Return a point whose every value ``pick`` has chosen, from a name and its possible values in turn.

        A name always comes with the same values; where only one is possible it is not asked for.
        """

        def choose(name: str, values: Sequence[Any]) -> Any:
            return values[0] if len(values) == 1 else pick(name, values)

        where = choose("where", self.where)
        axes: dict[str, Any] = {"where": where}
        parts: list[tuple[Shape, Scale]] = []
        for part in ("attention", "ffn"):
            if where in (part, "both"):
                parts.append(self._shape(part, choose, axes))
            else:
                axes |= {f"{part}.{axis}": NONE for axis in (*Shape.__dataclass_fields__, "scale")}
        split = float(choose("split", self.space.split)) if where == "both" else None
        axes["split"] = NONE if split is None else split
        axes["stack"], axes["layers"] = NONE, NONE
        if any(shape.representation != "input" for shape, _ in parts):
            axes["stack"] = choose("stack", self.stacks)
            axes["layers"] = choose("layers", self.space.layers)
        rate = float(choose("learning_rate", self.space.learning_rate)) if self.space.learning_rate else None
        if rate is not None:
            axes["learning_rate"] = rate
        return Point(axes, tuple(parts), self._spans(axes["stack"], axes["layers"]), split, rate)

    def _shape(self, part: str, choose: Pick, axes: dict[str, Any]) -> tuple[Shape, Scale]:
        everything = [shape for shape in self.shapes if shape.part == part]
        left = everything
        for axis in Shape.__dataclass_fields__:
            values = list(dict.fromkeys(getattr(shape, axis) for shape in left))
            whole = list(dict.fromkeys(getattr(shape, axis) for shape in everything))
            name = f"{part}.{axis}" if values == whole else f"{part}.{axis} of {', '.join(values)}"
            axes[f"{part}.{axis}"] = value = choose(name, values)
            left = [shape for shape in left if getattr(shape, axis) == value]
        (shape,) = left
        scale: Scale = choose(f"{part}.scale", self.space.scale) if shape.composition == "add" else 1.0
        axes[f"{part}.scale"] = scale if shape.composition == "add" else NONE
        return shape, scale

    def _spans(self, stack: str, layers: str) -> tuple[dict[str, Any], ...]:
        """Return what narrows a representation to the chosen stacks and layers."""
        if layers in ("all", NONE):
            return ({},) if stack in ("all", NONE) else ({"stack": stack},)
        spans: list[dict[str, Any]] = []
        for name, count in self.layers.items():
            if stack in ("all", name):
                half = count // 2
                chosen = range(half, count) if layers == "upper half" or not half else range(half)
                spans.append({"stack": name, "layers": tuple(chosen)})
        return tuple(spans)

    def _cost(self, shape: Shape, model: nn.Module) -> int:
        """Return what a change costs at its smallest on the whole model, and remember the model's stacks."""
        changes = tuple(shape.modifications(1, 1.0, ({},)))
        for one in changes:
            refuse_nonsense(one)
        made = plan(Method(modifications=changes), model)
        for site in (placement.site for placement in made.placements):
            stack = site.stack.stack
            if shape.representation != "input":
                self.layers[stack] = max(self.layers.get(stack, 0), site.layer + 1)
        return made.added_parameters


def fit(build: Callable[[int], Method], model: nn.Module, budget: int, largest: int) -> tuple[int, int] | None:
    """Return the largest size within the budget, and what it costs; None if even the smallest is larger.

    What a change costs grows by the same amount with every step of its size, so two plans tell the size; a third
    one makes sure.
    """

    def cost(size: int) -> int:
        return plan(build(size), model).added_parameters

    first = cost(1)
    if first > budget:
        return None
    step = max(cost(2) - first, 1)
    size = min(1 + (budget - first) // step, largest)
    while size > 1 and cost(size) > budget:
        size -= 1
    return size, cost(size)


def sized(point: Point, model: nn.Module, budget: int) -> tuple[Method, int] | None:
    """Return a point with the sizes that use the budget, and what it costs; None if no size is small enough.

    Where two sub-layers share the budget the second gets what the first leaves.
    """
    sizes: list[int] = []
    spent = 0
    for at, (shape, _) in enumerate(point.parts):
        mine = budget - spent if at == len(point.parts) - 1 else int((point.split or 1.0) * budget)

        def build(size: int, at: int = at) -> Method:
            return point.part(at, size)

        found = fit(build, model, mine, shape.largest)
        if found is None:
            return None
        sizes.append(found[0])
        spent += found[1]
    return point.method(sizes), spent
