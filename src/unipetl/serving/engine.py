"""The models of a server: which attachments are on them, and what a batch of rows computes."""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from unipetl.attaching import activate, detach
from unipetl.errors import MismatchError, PetlError, RefusedError, ServingError, first_line
from unipetl.serving.batching import Item
from unipetl.serving.lane import Lane, pooled
from unipetl.serving.reader import Reader, Row
from unipetl.serving.sharing import equal, share
from unipetl.serving.source import Opened, Opener, Source, load_base
from unipetl.storage import attach_saved, reload_saved
from unipetl.tasks import Task

Action = Literal["classify", "generate", "embed"]
#: What a model of a kind can do.
ACTIONS: Mapping[str, tuple[Action, ...]] = {
    "classification": ("classify", "embed"),
    "generation": ("generate", "embed"),
    "embedding": ("embed",),
}


@dataclass(frozen=True, eq=False)
class Served:
    """An attachment that is served, or a bare model.

    Attributes:
        name: what requests call it; None for a bare model.
        key: its name on the lane's model; None for a bare model.
        lane: its model.
        reader: how its texts are read.
        facts: what is told about it.
    """

    name: str | None
    key: str | None
    lane: Lane
    reader: Reader
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def actions(self) -> tuple[Action, ...]:
        """What can be asked of it."""
        return ACTIONS[self.reader.kind]


@dataclass(frozen=True)
class Work:
    """One row, and what is asked of it.

    Attributes:
        settings: of ``generate``, all of them.
        seed: what is drawn depends on it; None where nothing is drawn.
        pooling, normalize: of embeddings.
    """

    action: Action
    served: Served
    row: Row
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    pooling: str = "mean"
    normalize: bool = False


class Engine:
    """One base, in memory once, and everything that is attached to it.

    After the start, [attach][], [refresh][], [remove][] and [compute][] belong to the worker thread, and [open][] and
    [read][] to another one.

    Args:
        base: a folder or hub name, where there are attachments that no run tells a model of.
        tasks: tasks of runs that are not unipetl's, by name.
        device: what the models compute on; None for a GPU if there is one.

    Raises:
        ServingError: there is no such device.
    """

    def __init__(
        self, base: str | None = None, tasks: Mapping[str, Task] | None = None, device: str | None = None
    ) -> None:
        self.lanes: list[Lane] = []
        self.device = device_of(device)
        self._opener = Opener(base, tasks)
        self._numbers = itertools.count()
        self._spelling = threading.Lock()  # tokenizers are not made for several threads

    def load(self, source: Source) -> Served:
        """Open a source and attach it."""
        return self.attach(self.open(source))

    def load_base(self) -> None:
        """Load the base as its checkpoint names it, if nothing has brought a model yet."""
        if not self.lanes and self._opener.base is not None:
            model, reader = load_base(self._opener.base, None)
            self.lanes.append(Lane(self._moved(model), reader))

    def open(self, source: Source) -> Opened:
        """Read a source; the models are not touched.

        Raises:
            PetlError: there is nothing to serve, or it is damaged.
        """
        return self._opener.open(source)

    def attach(self, opened: Opened) -> Served:
        """Put what was opened on a model: on one that is here if it fits, else on one more that shares the base.

        Raises:
            ServingError: it is of another base.
            StorageError, PlanError: it is damaged, or makes no sense on its model.
        """
        try:
            return self._placed(opened)
        finally:
            self._opener.forget()

    def refresh(self, opened: Opened, held: Served) -> Served | None:
        """Put the values of what was opened into an attachment that is here, in place.

        Returns:
            What is served now, under the same ``key``; None if it does not fit, and nothing has changed.
        """
        lane = held.lane
        if opened.saved is None or held.key is None or opened.signature not in (None, lane.signature):
            return None
        if opened.signature is None and type(lane.model).__name__ != opened.model_class:
            return None
        try:
            reload_saved(lane.model, opened.saved, name=held.key)
        except PetlError:  # another method, or another base: attach() finds a place for it or tells why there is none
            return None
        self._opener.forget()
        return Served(opened.source.name, held.key, lane, opened.reader or lane.reader, opened.facts)

    def remove(self, served: Served) -> None:
        """Take an attachment off its model."""
        if served.key is not None:
            detach(served.lane.model, served.key)

    def bare(self, action: Action) -> Served | None:
        """Return the bare model that can do ``action``; None if there is none."""
        for lane in self.lanes:
            if action in ACTIONS[lane.reader.kind]:
                return Served(None, None, lane, lane.reader)
        return None

    def read(self, served: Served, texts: Sequence[str]) -> list[Row]:
        """Return texts as rows.

        Raises:
            TaskError: the task cannot read one.
        """
        with self._spelling:
            return [served.reader.encode(text) for text in texts]

    def compute(self, items: Sequence[Item]) -> list[Any]:
        """Return the answers to the rows of a batch: one lane, one action and, for writing, one setting."""
        works: list[Work] = [item.work for item in items]
        first, rows = works[0], [work.row for work in works]
        lane, keys = first.served.lane, [work.served.key for work in works]
        if first.action == "classify":
            chances = lane.classify(rows, keys).tolist()
            return [_label(work, found) for work, found in zip(works, chances, strict=True)]
        if first.action == "embed":
            hidden, mask = lane.embed(rows, keys)
            found = [pooled(h, m, work.pooling) for h, m, work in zip(hidden, mask, works, strict=True)]
            return [_vector(one, normalize=work.normalize) for one, work in zip(found, works, strict=True)]
        with self._opener.drawing if first.seed is not None else nullcontext():
            written = lane.generate(
                rows, keys, first.settings, seed=first.seed, wanted=lambda: any(item.wanted for item in items)
            )
        with self._spelling:
            return [{"text": work.served.reader.decode(ids)} for work, ids in zip(works, written, strict=True)]

    def _moved(self, model: PreTrainedModel) -> PreTrainedModel:
        nn.Module.to(model, self.device)
        return model

    def _placed(self, opened: Opened) -> Served:
        mismatch: MismatchError | None = None
        for lane in self.lanes:
            if opened.signature not in (None, lane.signature):
                continue
            if opened.signature is None and type(lane.model).__name__ != opened.model_class:
                continue
            if opened.saved is None and not equal(self._moved(opened.model()[0]), lane.model):  # no fingerprint tells
                continue
            try:
                return self._attached(opened, lane)
            except MismatchError as error:
                mismatch = error
        try:
            model, reader = opened.model()
            self._moved(model)
            if self.lanes:
                share(model, self.lanes[0].model, str(opened.source.path))
            lane = Lane(model, reader)
            served = self._attached(opened, lane)
        except (ServingError, MismatchError) as error:
            raise ServingError(str(mismatch or error)) from error
        self.lanes.append(lane)
        return served

    def _attached(self, opened: Opened, lane: Lane) -> Served:
        name, key = opened.source.name, None
        if opened.saved is not None:
            key = f"{name}#{next(self._numbers)}"  # a name that is loaded again is another one on the model
            attach_saved(lane.model, opened.saved, name=key)
            activate(lane.model, None)
        return Served(name, key, lane, opened.reader or lane.reader, opened.facts)


def device_of(name: str | None) -> torch.device:
    """Return a device by its name; None is a GPU if there is one, else the CPU.

    Raises:
        ServingError: it cannot be used.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.zeros(1).to(name).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # AssertionError: torch without CUDA
        raise ServingError(f"device {name!r} cannot be used: {first_line(error)}") from error


def _label(work: Work, chances: list[float]) -> dict[str, Any]:
    _finite(chances)
    names = work.served.reader.labels
    best = max(range(len(chances)), key=chances.__getitem__)
    return {
        "label": names[best],
        "probability": chances[best],
        "probabilities": dict(zip(names, chances, strict=True)),
    }


def _vector(values: Tensor, *, normalize: bool) -> list[float]:
    return _finite((functional.normalize(values, dim=0) if normalize else values).tolist())


def _finite(values: list[float]) -> list[float]:
    if not all(map(math.isfinite, values)):
        raise RefusedError(500, "the model computed NaN or infinity for this input.")
    return values
