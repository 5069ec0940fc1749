"""Dynamic batching: rows that come within a few milliseconds are computed together, in one worker thread.

The oldest row that waits says what the next batch is about (its ``key``), and rows of the same key join it in the order
of their arrival, until the batch is full or the oldest has waited long enough. Each row's answer goes to the row's own
future, so nothing can be mixed up by order. A row that nobody waits for any more is dropped before it costs anything.

The model runs in one thread, and the event loop never waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from unipetl.errors import PetlError, RefusedError
from unipetl.serving.limits import Limits

logger = logging.getLogger("unipetl.serving")
T = TypeVar("T")


@dataclass(eq=False)
class Item:
    """One row that waits for its answer.

    Attributes:
        key: rows of different keys never share a batch.
        size: tokens.
        work: what the computation needs to know of it.
        future: where its answer goes.
        arrived: the loop's time of its arrival.
    """

    key: Hashable
    size: int
    work: Any
    future: asyncio.Future[Any]
    arrived: float = field(default=0.0)

    @property
    def wanted(self) -> bool:
        """Whether anybody still waits for the answer."""
        return not self.future.done()


Compute = Callable[[Sequence[Item]], Sequence[Any]]


@dataclass(frozen=True)
class Watch:
    """What is told as batches go by; each function is called on the event loop.

    Attributes:
        batch: the rows of a batch and the seconds that it took.
        dropped: the number of rows that nobody waited for any more.
    """

    batch: Callable[[Sequence[Item], float], None]
    dropped: Callable[[int], None]


class Batcher:
    """The queue, and the thread that the model runs in.

    Args:
        compute: from the rows of a batch, all of one key, to their answers in order; called in the worker thread.
        limits: of batches and of the queue.
        watch: what is told; None for nothing.
    """

    def __init__(self, compute: Compute, limits: Limits, watch: Watch | None = None) -> None:
        self._compute = compute
        self._limits = limits
        self._watch = watch
        self._queue: deque[Item] = deque()
        self._arrival = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="unipetl-model")
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self._row_seconds = 0.0
        self._reserved = 0
        self._busy = False

    @property
    def waiting(self) -> int:
        """The number of rows that wait."""
        return sum(item.wanted for item in self._queue)

    @property
    def alive(self) -> bool:
        """Whether rows are taken and computed."""
        return self._task is not None and not self._task.done() and not self._closing

    def start(self) -> None:
        """Begin to compute; call it on the event loop."""
        self._task = asyncio.get_running_loop().create_task(self._serve(), name="unipetl-batches")

    @contextmanager
    def room(self, rows: int) -> Iterator[None]:
        """Keep places for ``rows`` that are about to be submitted inside the block.

        Raises:
            RefusedError: 503, there are not so many, or the server is stopping.
        """
        if not self.alive:
            raise RefusedError(503, "this server is stopping and takes no new requests.", retry_after=5)
        waiting = self.waiting + self._reserved
        if waiting + rows > self._limits.max_queue:
            seconds = max(1, math.ceil(waiting * self._row_seconds))
            raise RefusedError(
                503,
                f"{waiting} texts wait already, and at most {self._limits.max_queue} may; try again in about "
                f"{seconds} s.",
                retry_after=seconds,
            )
        self._reserved += rows
        self._idle.clear()
        try:
            yield
        finally:
            self._reserved -= rows
            self._settle()

    def submit(self, rows: Sequence[tuple[Hashable, int, Any]]) -> list[asyncio.Future[Any]]:
        """Put rows (key, tokens, work) into the queue, in a block of [room][].

        Returns:
            A future for each; whoever cancels it takes the row back.
        """
        loop = asyncio.get_running_loop()
        items = [Item(key, size, work, loop.create_future(), loop.time()) for key, size, work in rows]
        self._queue.extend(items)
        self._arrival.set()
        return [item.future for item in items]

    def _settle(self) -> None:
        """Note that there is nothing to do, if so."""
        if not (self._queue or self._busy or self._reserved):
            self._idle.set()

    async def alone(self, function: Callable[[], T]) -> T:
        """Call ``function`` in the worker thread, between two batches, and return what it returns."""
        return await asyncio.get_running_loop().run_in_executor(self._worker, function)

    def drain(self) -> None:
        """Take nothing more; what waits is computed without further delay."""
        self._closing = True
        self._arrival.set()

    async def close(self, grace: float) -> int:
        """Take nothing more, finish what waits within ``grace`` seconds, and return how many rows were given up."""
        self.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._idle.wait()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        given_up = 0
        for item in self._queue:
            if item.wanted:
                item.future.set_exception(RefusedError(503, "this server is stopping.", retry_after=5))
                given_up += 1
        self._queue.clear()
        await asyncio.to_thread(self._worker.shutdown)
        return given_up

    async def _serve(self) -> None:
        while True:
            batch = await self._gather()
            self._busy = True
            started = time.perf_counter()
            try:
                answers = await self.alone(partial(isolated, self._compute, batch))
            except asyncio.CancelledError:
                self._queue.extendleft(reversed(batch))  # for close() to give up
                raise
            seconds = time.perf_counter() - started
            for item, answer in zip(batch, answers, strict=True):
                if not item.wanted:
                    continue
                if isinstance(answer, BaseException):
                    item.future.set_exception(answer)
                else:
                    item.future.set_result(answer)
            share = seconds / len(batch)
            self._row_seconds = share if self._row_seconds == 0 else 0.8 * self._row_seconds + 0.2 * share
            if self._watch is not None:
                self._watch.batch(batch, seconds)
            self._busy = False

    async def _gather(self) -> list[Item]:
        """Wait for rows, give others a moment to join them, and take a batch out of the queue."""
        loop = asyncio.get_running_loop()
        while True:
            self._prune()
            self._arrival.clear()
            self._settle()
            if not self._queue:
                await self._arrival.wait()
                continue
            batch, full = self._next()
            patience = self._queue[0].arrived + self._limits.max_wait_ms / 1000
            if full or self._closing or loop.time() >= patience:
                chosen = set(map(id, batch))
                self._queue = deque(item for item in self._queue if id(item) not in chosen)
                return batch
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(patience):
                    await self._arrival.wait()

    def _next(self) -> tuple[list[Item], bool]:
        """Return the rows that would be computed now, and whether no other could join them."""
        key, longest = self._queue[0].key, 0
        batch: list[Item] = []
        for item in self._queue:
            if item.key != key:
                continue
            longest = max(longest, item.size)
            if batch and longest * (len(batch) + 1) > self._limits.max_batch_tokens:
                return batch, True
            batch.append(item)
            if len(batch) == self._limits.max_batch_rows:
                return batch, True
        return batch, False

    def _prune(self) -> None:
        kept = deque(item for item in self._queue if item.wanted)
        if len(kept) < len(self._queue):
            if self._watch is not None:
                self._watch.dropped(len(self._queue) - len(kept))
            self._queue = kept


def isolated(compute: Compute, items: Sequence[Item]) -> list[Any]:
    """Return the answers to ``items``, or the error of those that have one.

    A batch that fails is computed again in two halves, so that a row that cannot be computed, or a batch too large for
    the memory, takes no others with it.
    """
    try:
        return list(compute(items))
    except Exception as error:  # whatever a row raises is that row's answer
        if len(items) == 1:
            if not isinstance(error, PetlError):
                logger.error("a row could not be computed", exc_info=error)
            return [error]
    half = len(items) // 2
    return isolated(compute, items[:half]) + isolated(compute, items[half:])
