"""One change of many attachments, computed for all rows at once.

The parameters of attachments of one structure are stacked, one row of the batch each, so that 32 different changes in
a batch of 32 cost as many operations as one. While nothing is trained the stacks are kept, and made anew when a
parameter has changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from unipetl.attaching.heads import HeadItem
from unipetl.attaching.ports import Change, Item, Step
from unipetl.attaching.rows import Rows, places
from unipetl.composition import Multiply
from unipetl.errors import AttachError
from unipetl.forms.form import view_with
from unipetl.forms.head_attention import HeadAttentionDelta
from unipetl.forms.kept import Kept


@dataclass
class Group:
    """The changes of one structure at one place, one for each of some rows.

    Attributes:
        total: the number of rows named in all.
        rows: those that have such a change; ``changes`` are theirs, in the same order.
    """

    total: int
    rows: tuple[int, ...]
    changes: tuple[Change, ...]
    distinct: list[Change] = field(init=False)
    which: list[int] = field(init=False)
    watched: list[Tensor] = field(init=False)
    kept: Kept[Change] = field(default_factory=Kept, init=False)
    indices: dict[tuple[int, torch.device], Tensor] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        """Find out which rows share a change."""
        numbers: dict[int, int] = {}
        self.distinct = []
        for one in self.changes:
            if id(one) not in numbers:
                numbers[id(one)] = len(self.distinct)
                self.distinct.append(one)
        self.which = [numbers[id(one)] for one in self.changes]
        self.watched = [value for one in self.distinct for value in _parameters(one)]

    @property
    def whole(self) -> bool:
        """Whether every row has such a change."""
        return len(self.rows) == self.total

    def change(self) -> Change:
        """Return one change for these rows: the one they share, or one with parameters (rows, ...)."""
        if len(self.distinct) == 1:
            return self.distinct[0]
        return self.kept.get(self.watched, self.distinct[0].training, self._stacked)

    def _stacked(self) -> Change:
        first = self.distinct[0]
        scales: list[Tensor] = [one.scale for one in self.changes if one.scale is not None]
        delta = first.delta.stacked([one.delta for one in self.changes])
        result = view_with(first, {"scale": torch.stack(scales)} if scales else {}, {"delta": delta})
        assert isinstance(result, Change)
        return result

    def index(self, size: int, device: torch.device) -> Tensor:
        """Return where these rows are among ``size`` rows, of which as many neighbours belong to each one named.

        Raises:
            AttachError: they cannot be shared out.
        """
        each = self.each(size)
        key = (each, device)
        if key not in self.indices:
            self.indices[key] = places(self.rows, each, device)
        return self.indices[key]

    def each(self, size: int) -> int:
        """Return how many of ``size`` rows belong to each one named.

        Raises:
            AttachError: they cannot be shared out.
        """
        if size % self.total:
            raise AttachError(
                f"routed(): an attention was given {size} rows, which are not a multiple of the {self.total} named."
            )
        return size // self.total

    def of(self, whole: Tensor) -> Tensor:
        """Map (rows named * each, ...) to these rows'."""
        return whole if self.whole else whole.index_select(0, self.index(whole.shape[0], whole.device))

    def put(self, whole: Tensor, part: Tensor) -> Tensor:
        """Return ``whole`` with these rows replaced by ``part``."""
        if self.whole:
            return part
        return whole.index_copy(0, self.index(whole.shape[0], whole.device), part)

    def delta(self, change: Change, x: Tensor) -> Tensor:
        """Return the change for these rows' x (rows, n, features), one attachment at a time if the form says so."""
        if self._at_once(change):
            return change.delta(x)
        parts, order = [], []
        for number, one in enumerate(self.distinct):
            rows = [row for row, which in enumerate(self.which) if which == number]
            own = x.index_select(0, torch.tensor(rows, device=x.device))
            part = one.delta(own)
            parts.append(part if part.dim() == x.dim() else part.expand(len(rows), x.shape[1], -1))
            order += rows
        return torch.cat(parts).index_select(0, torch.tensor(order, device=x.device).argsort())

    def _at_once(self, change: Change) -> bool:
        return len(self.distinct) == 1 or change.delta.by_row

    def added(self, h: Tensor, x: Tensor) -> Tensor:
        """Return h (rows named, n, features) with these rows' changes added, which read ``x``."""
        change, own, read = self.change(), self.of(h), self.of(x)
        if self._at_once(change):
            return self.put(h, change.added(own, read))
        return self.put(h, change.add_to(own, self.delta(change, read)))

    def multiplied(self, h: Tensor, x: Tensor) -> Tensor:
        """Return h with these rows multiplied by their factors, which read ``x``."""
        return self.put(h, self.of(h) * self.delta(self.change(), self.of(x)))


def _parameters(change: Change) -> list[Tensor]:
    found: list[Tensor] = list(change.parameters())
    shared = change.delta.shared if isinstance(change.delta, HeadAttentionDelta) else None
    return found if shared is None else [*found, *shared.parameters()]


@dataclass
class GroupItem(Item):
    """An item for some rows; ``change`` is the first of its changes."""

    group: Group | None = None


@dataclass
class RowStep(Step):
    """The changes of one representation, each for its rows; all of a row read the same h."""

    rows: Rows | None = None

    def _change(self, h: Tensor, own_input: Tensor | None, *, spare: bool = False) -> Tensor:
        del spare
        assert self.rows is not None
        read = self.rows.split(h)
        result = read
        for multiplies in (True, False):
            for item in self.items:
                assert isinstance(item, GroupItem) and item.group is not None
                if isinstance(item.change.modification.composition, Multiply) != multiplies:
                    continue
                if multiplies:
                    result = item.group.multiplied(result, read)
                else:
                    result = item.group.added(result, self._read(item, h, read, own_input))
        return result.reshape(h.shape)

    def _read(self, item: Item, h: Tensor, read: Tensor, own_input: Tensor | None) -> Tensor:
        assert self.rows is not None
        if item.tape is None and not item.own_input and item.norm is None:
            return read
        x = h if item.tape is None else item.tape.take()
        if item.own_input:
            assert own_input is not None
            x = own_input
        return self.rows.split(x if item.norm is None else item.norm.forward(x))


@dataclass
class GroupHead(HeadItem):
    """A change inside an attention, of some rows; the others' keys are zero, and hidden from the softmax."""

    group: Group | None = None

    @property
    def _rows(self) -> Group:
        assert self.group is not None
        return self.group

    def keys_values(self, batch: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return every row's keys and values, zero where it has none."""
        key, value = self.own_keys_values(batch, dtype)
        if self._rows.whole:
            return key, value
        return tuple(self._rows.put(one.new_zeros(batch, *one.shape[1:]), one) for one in (key, value))  # type: ignore[return-value]

    @property
    def partial(self) -> bool:
        """Whether some rows have none."""
        return not self._rows.whole

    def own_keys_values(self, batch: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return the keys and values of these rows alone; ``batch`` counts all."""
        delta = self._rows.change().delta
        assert isinstance(delta, HeadAttentionDelta)
        own = self._rows.each(batch) * len(self._rows.rows)
        key, value = delta.keys_values(own, dtype)
        return key.expand(own, -1, -1, -1), value.expand(own, -1, -1, -1)

    def valid(self, batch: int, device: torch.device) -> Tensor | None:
        """Return which rows have these keys."""
        if self._rows.whole:
            return None
        none = torch.zeros(batch, self.length, dtype=torch.bool, device=device)
        return none.index_fill(0, self._rows.index(batch, device), True)

    def normed(self, x: Tensor) -> Tensor:
        """Return ``x`` with these rows normalised, each by its own norm."""
        delta = self._rows.change().delta
        assert isinstance(delta, HeadAttentionDelta) and delta.layer_norm is not None
        return self._rows.put(x, delta.layer_norm(self._rows.of(x)))

    def joined(self, h: Tensor, query: Tensor, scaling: float, dropout: float) -> Tensor:
        """Return the heads' results with these rows' changes added."""
        change, part = self._rows.change(), self._rows.of(h)
        delta = change.delta(self._rows.of(query), scaling, dropout).transpose(1, 2)
        return self._rows.put(h, change.add_to(part, delta.reshape(part.shape)))


@dataclass
class PackedHeads(HeadItem):
    """The keys of several groups, as many as a row has next to each other, so that few places stay empty."""

    groups: Sequence[GroupHead] = ()
    offsets: Sequence[Sequence[int]] = ()
    lengths: Sequence[int] = ()

    @property
    def partial(self) -> bool:
        """Whether some rows have fewer keys than others."""
        return min(self.lengths) != self.length

    @property
    def length(self) -> int:
        """The largest number of keys of a row."""
        return max(self.lengths)

    def keys_values(self, batch: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return every row's keys and values, one after the other, then zeros."""
        if len(self.groups) == 1:
            return self.groups[0].keys_values(batch, dtype)
        parts = [one.own_keys_values(batch, dtype) for one in self.groups]
        return self._packed(batch, [key for key, _ in parts]), self._packed(batch, [value for _, value in parts])

    def _packed(self, batch: int, parts: Sequence[Tensor]) -> Tensor:
        first = parts[0]
        each = batch // len(self.lengths)
        packed = first.new_zeros(batch, self.length, first.shape[1], first.shape[3])
        for group, offsets, part in zip(self.groups, self.offsets, parts, strict=True):
            rows = group._rows.index(batch, first.device)
            start = torch.tensor(offsets, device=first.device).repeat_interleave(each)
            columns = start[:, None] + torch.arange(part.shape[2], device=first.device)
            packed = packed.index_put((rows[:, None], columns), part.transpose(1, 2))
        return packed.transpose(1, 2)

    def valid(self, batch: int, device: torch.device) -> Tensor | None:
        """Return which rows have keys at which places."""
        if min(self.lengths) == self.length:
            return None
        lengths = torch.tensor(self.lengths, device=device).repeat_interleave(batch // len(self.lengths))
        return torch.arange(self.length, device=device) < lengths[:, None]


def packed(heads: Sequence[GroupHead], total: int) -> PackedHeads:
    """Return the keys of ``heads`` packed for ``total`` rows."""
    lengths = [0] * total
    offsets = []
    for one in heads:
        offsets.append([lengths[row] for row in one._rows.rows])
        for row in one._rows.rows:
            lengths[row] += one.length
    return PackedHeads(heads[0].change, groups=heads, offsets=offsets, lengths=lengths)
