"""From a method and a model to a plan: where every change goes and what it costs. Nothing is touched.

``plan`` is the second step of the only path through this library: method (data), plan (checked and
printable), attach (the one mutation).
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from unipetl import notation
from unipetl.architectures import Architecture, Site, architecture_for, find_sites
from unipetl.composition import Add
from unipetl.errors import ArchitectureError, PlanError
from unipetl.forms import Form, Heads, Shape
from unipetl.method import Method, Modification
from unipetl.representation import NAMES, rank
from unipetl.sense import refuse_nonsense, shape_at

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

#: Model classes whose head is made for one task and starts untrained.
TASK_HEADS = (
    "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering", "ForMultipleChoice",
    "ForImageClassification", "ForAudioClassification", "ForNextSentencePrediction", "DoubleHeadsModel",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Placement:
    """One change at one site.

    Attributes:
        key: its name, stable across runs, orders and model classes of a family.
        group: the name of what it shares with other placements, or None.
        index: its place among those that share.
    """

    key: str
    label: str
    site: Site
    modification: Modification
    shape: Shape
    group: str | None
    index: int
    parameters: int
    paper_parameters: int


@dataclass(frozen=True, slots=True)
class Group:
    """A module that the placements of one stack and kind of attention share."""

    key: str
    label: str
    form: Form
    shapes: tuple[Shape, ...]
    parameters: int


@dataclass(frozen=True)
class Plan:
    """A method on a model: printable, immutable, executed by [attach][unipetl.attaching.attach].

    Attributes:
        method: the method.
        model_class, model_type: what it was planned for.
        base: path of the base model inside the model.
        placements: every change, in the order of the computation.
        groups: what placements share.
        trained: the pretrained or head parameters that are trained too, with their sizes.
        base_parameters: size of the model itself.
    """

    method: Method
    model_class: str
    model_type: str
    base: str
    placements: tuple[Placement, ...]
    groups: tuple[Group, ...]
    trained: tuple[tuple[str, int], ...]
    head: tuple[str, ...]
    base_parameters: int

    @property
    def parameters(self) -> int:
        """The number of trained values: the changes', and the trained pretrained ones and head."""
        return self.added_parameters + sum(size for _, size in self.trained)

    @property
    def added_parameters(self) -> int:
        """The number of values the method adds to the model."""
        return sum(one.parameters for one in self.placements) + sum(group.parameters for group in self.groups)

    @property
    def paper_parameters(self) -> int:
        """The count by the paper's rule (appendix B): weight matrices only, no biases, norms, MLP or head.

        Pretrained parameters that the method trains (BitFit, full fine-tuning) count, the task head does not.
        """
        head = set(self.head)
        trained = sum(size for name, size in self.trained if name not in head)
        return sum(one.paper_parameters for one in self.placements) + trained

    @property
    def share(self) -> float:
        """``parameters`` as a fraction of the base model's."""
        return self.parameters / max(self.base_parameters, 1)

    @property
    def paper_share(self) -> float:
        """``paper_parameters`` as a fraction of the base model's."""
        return self.paper_parameters / max(self.base_parameters, 1)

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per kind of place: where, what, how many places and parameters."""
        rows: dict[tuple[str, ...], dict[str, Any]] = {}
        for one in self.placements:
            where = re.sub(r"\.\d+\.", ".*.", one.site.name)
            row = rows.setdefault(
                (where, one.label),
                {
                    "place": where,
                    "layers": [],
                    **one.modification.row(),
                    "places": 0,
                    "parameters": 0,
                    "paper parameters": 0,
                },
            )
            row["layers"].append(one.site.layer)
            row["places"] += 1
            row["parameters"] += one.parameters
            row["paper parameters"] += one.paper_parameters
        for group in self.groups:
            rows[(group.key, "shared")] = {
                "place": group.key, "layers": [], "functional form": "reparametrisation (shared)", "insertion": "",
                "representation": "", "composition": "", "places": 1, "parameters": group.parameters, "paper parameters": 0,
            }  # fmt: skip
        return list(rows.values())

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as JSON-ready data."""
        return {
            "model_class": self.model_class, "model_type": self.model_type, "method": self.method.plain(),
            "rows": self.rows(), "trained": {name: size for name, size in self.trained},
            "parameters": self.parameters, "share": self.share, "paper_parameters": self.paper_parameters,
            "paper_share": self.paper_share, "base_parameters": self.base_parameters,
        }  # fmt: skip

    def __str__(self) -> str:
        """Return the plan as a table."""
        columns = ("place", "functional form", "insertion", "composition", "places", "parameters")
        table = [
            [str(row[c]) if not isinstance(row[c], int) else f"{row[c]:,}" for c in columns] for row in self.rows()
        ]
        for title, names in (("task head", set(self.head)), ("pretrained", None)):
            sizes = [n for name, n in self.trained if (name in names if names is not None else name not in self.head)]
            if sizes:
                table.append([title, "trained in place", "", "", f"{len(sizes):,}", f"{sum(sizes):,}"])
        widths = [max([len(c), *(len(line[i]) for line in table)]) for i, c in enumerate(columns)]
        lines = ["  ".join(c.ljust(w) for c, w in zip(columns, widths, strict=True)).rstrip()]
        lines.append("  ".join("-" * w for w in widths))
        lines += ["  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in table]
        lines.append(
            f"{self.model_class}: {self.parameters:,} of {self.base_parameters:,} parameters trained ({self.share:.3%}); "
            f"by the paper's rule {self.paper_parameters:,} ({self.paper_share:.3%})."
        )
        return "\n".join(lines)


def plan(
    method: Method | str,
    model: nn.Module | PreTrainedConfig,
    *,
    architecture: Architecture | None = None,
    train_head: bool = True,
) -> Plan:
    """Check ``method`` against ``model`` and say where every change goes. Nothing is touched.

    Args:
        method: a method, or its text notation.
        model: a model on any device (the meta device too), or a bare config: no weights are needed.
        architecture: a table for a family that unipetl does not know.
        train_head: whether the task head, if the model has one, is trained.

    Raises:
        PlanError: the method makes no sense here; the message has the axis, the value and what would work.
    """
    method = notation.parse(method)
    module = model if isinstance(model, nn.Module) else model_from_config(model)
    base, table = _table(module, architecture)
    sites = find_sites(module, base, table)
    for one in method.modifications:
        refuse_nonsense(one)
    placements, groups = _place(method, module, sites)
    head = head_parameters(module, base, sites)
    trained = _trained(method, module, head, train_head=train_head)
    sizes = {id(p): p.numel() for name, p in module.named_parameters() if ".unipetl." not in f".{name}"}
    return Plan(
        method=method,
        model_class=type(module).__name__,
        model_type=str(getattr(getattr(module, "config", None), "model_type", type(module).__name__)),
        base=base,
        placements=placements,
        groups=groups,
        trained=trained,
        head=head if is_task_head(module) else (),
        base_parameters=sum(sizes.values()),
    )


def model_from_config(config: PreTrainedConfig) -> nn.Module:
    """Return a model of ``config`` on the meta device: shapes without weights.

    Raises:
        PlanError: transformers builds no model from it.
    """
    import transformers

    if not isinstance(config, transformers.PreTrainedConfig):
        raise PlanError(f"expected a model or a transformers config, found {type(config).__name__}.")
    named = [getattr(transformers, name, None) for name in getattr(config, "architectures", None) or ()]
    try:
        with torch.device("meta"):
            for model_class in named:
                if model_class is not None:
                    return model_class(config)  # type: ignore[no-any-return]
            return transformers.AutoModel.from_config(config)  # type: ignore[no-any-return]
    except (ValueError, AttributeError, TypeError) as error:
        raise PlanError(f"transformers cannot build a model from this {type(config).__name__}: {error}") from error


def _table(model: nn.Module, architecture: Architecture | None) -> tuple[str, Architecture]:
    inner = getattr(model, "base_model", model)
    base = next((path for path, module in model.named_modules() if module is inner), "")
    if architecture is not None:
        return base, architecture
    config = getattr(model, "config", None)
    if config is None or not hasattr(config, "model_type"):
        raise ArchitectureError(
            f"{type(model).__name__} is no transformers model (it has no config); pass `architecture=` with its table."
        )
    gated = bool(getattr(config, "is_gated_act", False))
    return base, architecture_for(config.model_type, gated=gated)


def _place(method: Method, model: nn.Module, sites: Sequence[Site]) -> tuple[tuple[Placement, ...], tuple[Group, ...]]:
    placements: list[Placement] = []
    groups: list[Group] = []
    for one, label in labelled(method.modifications):
        chosen = select(one, sites)
        by_group: dict[str, list[Site]] = {}
        for site in chosen:
            if one.form.needs is Heads:
                _refuse_without_interface(model, site)
            by_group.setdefault(f"{site.stack.stack}.{site.kind}" if site.kind else site.stack.stack, []).append(site)
        for place, members in by_group.items():
            shapes = tuple(shape_at(one, site.shape) for site in members)
            if (
                any(site.norm_after is None for site in members)
                and getattr(one.insertion, "reads", "") == "normed"
                and type(one.insertion).tag == "sequential"
            ):
                raise PlanError(
                    "insertion 'sequential' with reads='normed': this model is pre-norm, no norm follows 'ffn.residual'; use representation 'block'."
                )
            shared = _shared_parameters(one.form, shapes)
            if shared:
                groups.append(Group(f"{place}/{label}", label, one.form, shapes, shared))
            learned = isinstance(one.composition, Add) and one.composition.scale == "learned"
            for index, (site, shape) in enumerate(zip(members, shapes, strict=True)):
                placements.append(
                    Placement(
                        key=f"{site.name}/{label}",
                        label=label,
                        site=site,
                        modification=one,
                        shape=shape,
                        group=f"{place}/{label}" if shared else None,
                        index=index,
                        parameters=_own_parameters(one.form, shape, shapes if shared else None) + learned,
                        paper_parameters=one.form.paper_parameters(shape),
                    )
                )
    order = {site.name: number for number, site in enumerate(sites)}
    placements.sort(key=lambda one: (order[one.site.name], one.label))
    return tuple(placements), tuple(sorted(groups, key=lambda group: group.key))


def labelled(modifications: Sequence[Modification]) -> list[tuple[Modification, str]]:
    """Return every modification with a short name that does not depend on their order.

    Raises:
        PlanError: the same modification stands there twice.
    """
    names: dict[tuple[str, str], int] = {}
    result = []
    ordered = sorted(modifications, key=lambda one: Method(modifications=(one,)).canonical())
    for before, after in zip(ordered, ordered[1:], strict=False):
        if before == after:
            raise PlanError(
                f"the same modification of {str(after.representation)!r} stands there twice; "
                "use one with a larger rank or length instead."
            )
    for one in ordered:
        label = f"{type(one.insertion).tag}_{type(one.form).tag}"
        count = names[(one.representation.name, label)] = names.get((one.representation.name, label), 0) + 1
        result.append((one, label if count == 1 else f"{label}_{count}"))
    return result


def select(one: Modification, sites: Sequence[Site]) -> list[Site]:
    """Return the sites that the representation of ``one`` names.

    Raises:
        PlanError: there are none, or a layer is out of range.
    """
    wanted = one.representation
    named = [site for site in sites if site.representation == wanted.name]
    stacks = {site.stack.stack for site in sites}
    if wanted.stack is not None and wanted.stack not in stacks:
        raise PlanError(f"stack {wanted.stack!r}: this model has only: {', '.join(sorted(stacks))}.")
    if wanted.name == "input" and len(stacks) > 1:
        if wanted.stack == "decoder" or all(site.stack.stack == "decoder" for site in named):
            raise PlanError(
                "modified representation 'input': in an encoder-decoder model a prompt stands in front of the encoder's "
                "tokens, and "
                + ("the decoder's are no choice." if wanted.stack == "decoder" else "this encoder reads no tokens.")
                + " Use 'head_attention' at 'attention.heads' for learned keys and values in the decoder."
            )
        named = [site for site in named if site.stack.stack == "encoder"]  # the paper's prompt is the encoder's
    chosen = [site for site in named if wanted.stack in (None, site.stack.stack) and wanted.kind in (None, site.kind)]
    if wanted.layers is not None:
        depths = {
            site.stack.stack: max(s.layer for s in sites if s.stack.stack == site.stack.stack) + 1 for site in chosen
        }
        for layer in wanted.layers:
            if not any(-depth <= layer < depth for depth in depths.values()):
                found = ", ".join(f"{stack} {depth}" for stack, depth in sorted(depths.items()))
                raise PlanError(f"layers: there is no layer {layer}; depths of the selected stacks: {found or 'none'}.")
        chosen = [s for s in chosen if s.layer in wanted.layers or s.layer - depths[s.stack.stack] in wanted.layers]
    if not chosen and not wanted.optional:
        available = sorted({site.representation for site in sites}, key=rank)
        if wanted.name not in available:
            raise PlanError(
                f"modified representation {wanted.name!r} ({NAMES[wanted.name]}): this model has none. It has: {', '.join(available)}."
            )
        found = sorted(
            {
                f"{site.stack.stack}{' ' + site.kind if site.kind else ''}"
                for site in sites
                if site.representation == wanted.name
            }
        )
        raise PlanError(
            f"modified representation {str(wanted)!r} selects nothing in this model; it has {wanted.name!r} in: {', '.join(found)}."
        )
    return chosen


def head_parameters(model: nn.Module, base: str, sites: Sequence[Site]) -> tuple[str, ...]:
    """Return the names of the parameters of the task head, or of a language model's output projection."""
    if not is_task_head(model):
        output = getattr(model, "get_output_embeddings", lambda: None)()
        if output is None:
            return ()
        own = {id(parameter) for parameter in output.parameters()}
        return tuple(name for name, parameter in model.named_parameters() if id(parameter) in own)
    inside = {base} if base else {site.stack_root for site in sites}
    tokens = getattr(model, "get_input_embeddings", lambda: None)()
    shared = {id(parameter) for parameter in tokens.parameters()} if isinstance(tokens, nn.Module) else set()
    return tuple(
        name
        for name, parameter in model.named_parameters()
        if not any(name.startswith(f"{root}.") for root in inside if root)
        and ".unipetl." not in f".{name}"
        and id(parameter) not in shared
    )


def is_task_head(model: nn.Module) -> bool:
    """Return whether the model's class has a head made for one task."""
    return any(cls.__name__.endswith(TASK_HEADS) for cls in type(model).__mro__)


def _trained(method: Method, model: nn.Module, head: Sequence[str], *, train_head: bool) -> tuple[tuple[str, int], ...]:
    tokens = getattr(model, "get_input_embeddings", lambda: None)()
    embeddings = {id(p) for p in tokens.parameters()} if isinstance(tokens, nn.Module) else set()
    untrained = {name for name, p in model.named_parameters() if not p.requires_grad}
    fixed = untrained if len(untrained) < sum(1 for _ in model.parameters()) else set()  # sinusoids, not a frozen model
    wanted = set(head) if "head" in method.train or (train_head and is_task_head(model)) else set()
    for group in method.train:
        before = len(wanted)
        for name, parameter in model.named_parameters():
            owner, _, last = name.rpartition(".")
            norm = "norm" in owner.rpartition(".")[2].lower() or owner.rpartition(".")[2].startswith("ln_")
            if ".unipetl." in f".{name}" or name in fixed:
                continue
            if (
                group == "all"
                or (group == "bias" and "bias" in name)
                or (group == "norm" and norm and last in ("weight", "bias"))
            ) or (group == "embeddings" and id(parameter) in embeddings):
                wanted.add(name)
        if len(wanted) == before and not (group == "head" and head) and "all" not in method.train:
            raise PlanError(f"train {group!r}: {type(model).__name__} has no such parameters.")
    return tuple((name, p.numel()) for name, p in model.named_parameters() if name in wanted)


@lru_cache(maxsize=4096)
def _own_parameters(form: Form, shape: Shape, shapes: tuple[Shape, ...] | None) -> int:
    with torch.device("meta"):
        shared = form.build_shared(shapes) if shapes else None
        return sum(parameter.numel() for parameter in form.build(shape, shared, 0).parameters())


@lru_cache(maxsize=4096)
def _shared_parameters(form: Form, shapes: tuple[Shape, ...]) -> int:
    with torch.device("meta"):
        shared = form.build_shared(shapes)
    return 0 if shared is None else sum(parameter.numel() for parameter in shared.parameters())


def _refuse_without_interface(model: nn.Module, site: Site) -> None:
    core = type(model.get_submodule(site.owner))
    if not _uses_interface(core):
        raise PlanError(
            f"modified representation 'attention.heads': {core.__name__} of {type(model).__name__} computes its attention "
            "without transformers' attention interface, so nothing can be added inside it. What works here: "
            "'bottleneck' or 'low_rank' at 'attention', 'attention.query' or 'ffn'."
        )


@lru_cache(maxsize=1024)
def _uses_interface(core: type[nn.Module]) -> bool:
    try:
        return "get_interface" in inspect.getsource(core.forward)
    except (OSError, TypeError):  # no source at hand: trust the table
        return True


__all__ = ["Group", "Placement", "Plan", "plan"]
