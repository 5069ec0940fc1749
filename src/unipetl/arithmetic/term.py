"""An attachment as a value: its method and its tensors, apart from any model.

The changes are held by modification and place, so that what two attachments have in common can be told. A prefix
that an MLP computes is held as the keys and values it computes. Each expert of a mixture is a place of its own, so
what holds at a place holds at an expert.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from unipetl.architectures import Architecture
from unipetl.arithmetic.expertwise import Values, one_by_one, together
from unipetl.attaching import Attachment, attach, detach
from unipetl.attaching.state import Record, state_of, trained_tensors
from unipetl.errors import CombinationError
from unipetl.forms import HeadAttention
from unipetl.forms.head_attention import HeadAttentionDelta
from unipetl.method import Method, Modification, Trained
from unipetl.planning.places import labelled
from unipetl.saved import read


@dataclass(frozen=True)
class Part:
    """One modification, with its values at every place.

    A place is called as its site is; that of one expert, ``<site> expert <number>``.
    """

    modification: Modification
    places: dict[str, Values]


@dataclass(frozen=True)
class Term:
    """An attachment as a value.

    Attributes:
        parts: its modifications.
        groups, train_head: the groups of the model's own parameters it trains.
        own: name of such a parameter -> its value; ``originals`` its value before, where that is known.
        law: what function it is, for a term that was computed from others.
        errors: place -> relative error (Frobenius norm) of what is approximated there; empty for an exact term.
        name: what the attachment is called; "" for a term that was computed from others.
    """

    parts: tuple[Part, ...]
    groups: tuple[Trained, ...] = ()
    train_head: bool = False
    own: dict[str, Tensor] = field(default_factory=dict)
    originals: dict[str, Tensor] = field(default_factory=dict)
    law: str = ""
    errors: dict[str, float] = field(default_factory=dict)
    name: str = ""

    @property
    def method(self) -> Method:
        """The method."""
        return Method(modifications=tuple(part.modification for part in self.parts), train=self.groups)

    @property
    def exact(self) -> bool:
        """Whether it is exactly what its law says."""
        return not self.errors

    def tensors(self) -> dict[str, Tensor]:
        """Return every tensor under the name it has in a saved file."""
        named = dict(labelled(self.method.modifications))
        found = {
            f"{site}/{named[part.modification]}/{name}": value
            for part in self.parts
            for site, values in together(part.places).items()
            for name, value in values.items()
        }
        return found | {f"model/{name}": value for name, value in self.own.items()}


def term(source: Term | Attachment | nn.Module | str | Path, name: str | None = None) -> Term:
    """Return an attachment as a value.

    Args:
        source: an attachment, a model with attachments, or a folder written by ``save``.
        name: which attachment of a model; None if there is only one.

    Raises:
        AttachError: the model has no such attachment.
        StorageError: the folder is none of ours, or is damaged.
        CombinationError: a saved prefix is computed by an MLP; take its term from a model instead.
    """
    if isinstance(source, Term):
        return source
    if isinstance(source, Attachment):
        return _live(source.model, state_of(source.model).find(source.name))
    if isinstance(source, nn.Module):
        return _live(source, state_of(source).find(name))
    saved = read(source)
    method = saved.method()
    if any(isinstance(one.form, HeadAttention) and one.form.reparametrization for one in method.modifications):
        raise CombinationError(
            f"{str(saved.path)!r} holds a prefix as the MLP that computes it, for which a model is needed: load it and "
            "take the term from the model."
        )
    return replace(_from_tensors(method, saved.tensors, bool(saved.description["train_head"]), {}), name=saved.name)


def put(model: nn.Module, one: Term, *, name: str = "default", architecture: Architecture | None = None) -> Attachment:
    """Attach a term to ``model``.

    Raises:
        CombinationError: the term was taken from a model of other sizes.
        PlanError, AttachError: see [attach][unipetl.attaching.attach].
    """
    attachment = attach(model, one.method, name=name, train_head=one.train_head, architecture=architecture)
    try:
        targets, values = attachment.tensors(), one.tensors()
        wrong = sorted(set(targets) ^ set(values))
        wrong = wrong or sorted(key for key, value in values.items() if targets[key].shape != value.shape)
        if wrong:
            raise CombinationError(f"the term does not fit this {type(model).__name__}: {wrong[0]!r} is not in both.")
        with torch.no_grad():
            for key, value in values.items():
                targets[key].copy_(value)
    except BaseException:
        detach(model, name)
        raise
    return attachment


def _live(model: nn.Module, record: Record) -> Term:
    method = record.plan.method
    tensors = {key: value.detach().clone() for key, value in trained_tensors(model, record).items()}
    tensors = {key: value for key, value in tensors.items() if not key.startswith("shared/")}
    for one in record.plan.placements:
        delta = record.changes[one.key].delta
        if isinstance(delta, HeadAttentionDelta) and delta._shared[0] is not None:
            with torch.no_grad():
                key, value = delta._shared[0](delta.index)
            tensors[f"{one.key}/key"], tensors[f"{one.key}/value"] = key.clone(), value.clone()
    current = dict(model.named_parameters(remove_duplicate=False))
    originals = {  # parked are the original values while the attachment is active, the trained ones while it is not
        name: (value if record.active else current[name]).detach().clone() for name, value in record.parked.items()
    }
    train_head = bool(record.plan.head) and set(record.plan.head) <= {name for name, _ in record.plan.trained}
    settled = {(one.modification.representation.name, one.label): one.modification for one in record.plan.placements}
    return replace(_from_tensors(_direct(method, settled), tensors, train_head, originals), name=record.name)


def _direct(method: Method, settled: Mapping[tuple[str, str], Modification]) -> Method:
    """Return the method as it is in the model: activations settled, prefixes without their MLPs."""
    found = []
    for one, label in labelled(method.modifications):
        now = settled.get((one.representation.name, label), one)
        if isinstance(now.form, HeadAttention):
            now = rebuilt(now, form=now.form.model_copy(update={"reparametrization": None}))
        found.append(now)
    return Method(modifications=tuple(found), train=method.train)


def rebuilt(one: Modification, **changes: object) -> Modification:
    """Return the modification with other values on some axes."""
    axes = {name: getattr(one, name) for name in ("representation", "form", "insertion", "composition")}
    return Modification(**{**axes, **changes})


def _from_tensors(
    method: Method, tensors: Mapping[str, Tensor], train_head: bool, originals: Mapping[str, Tensor]
) -> Term:
    by_name: dict[tuple[str, str], dict[str, Values]] = {}
    own: dict[str, Tensor] = {}
    for key, value in tensors.items():
        if key.startswith("model/"):
            own[key.removeprefix("model/")] = value
            continue
        place, label, name = key.split("/")
        by_name.setdefault((representation_of(place), label), {}).setdefault(place, {})[name] = value
    parts = tuple(
        Part(one, one_by_one(one, by_name.pop((one.representation.name, label), {})))
        for one, label in labelled(method.modifications)
    )
    if by_name:
        name, label = next(iter(by_name))
        raise CombinationError(f"{label!r} at {name!r}: the attachment has values there and its method says none.")
    return Term(tuple(part for part in parts if part.places), method.train, train_head, own, dict(originals))


def representation_of(site: str) -> str:
    """Return the representation that a site's name names.

    ``encoder.0.self_attention.query`` is ``attention.query``; ``decoder.1.ffn.experts.3.up`` is ``ffn.up``.
    """
    parts = [part for part in site.split(".")[1:] if not part.isdigit() and part not in ("experts", "shared")]
    return ".".join("attention" if part.endswith("_attention") else part for part in parts)
