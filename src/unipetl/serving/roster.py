"""What a server serves, by name: who uses it, what takes its place, and when it leaves the model.

A newer file of the same method goes into tensors that are on the model already, in the model's thread between two
batches (``reload``), which takes milliseconds and compiles nothing. A request is answered by one set of values: while
somebody uses the old ones, the new ones go into a *spare*, the attachment that had the name before the one that has it
now, or where there is none beside it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial

from unipetl.errors import ServingError
from unipetl.serving.batching import Batcher
from unipetl.serving.engine import Engine, Served
from unipetl.serving.source import Opened


class Roster:
    """Names and what they stand for; everything here is called on the event loop.

    Args:
        engine: the models.
        served: what is served at the start.
        batcher: whose thread touches the models.
        forget: told the name that is served no more.

    Attributes:
        served: by name, in the order of their coming.

    Raises:
        ServingError: two have one name.
    """

    def __init__(
        self, engine: Engine, served: Iterable[Served], batcher: Batcher, forget: Callable[[str], None]
    ) -> None:
        self.served: dict[str, Served] = {}
        for one in served:
            if str(one.name) in self.served:
                raise ServingError(f"two attachments are called {one.name!r}; give them names: NAME=PATH.")
            self.served[str(one.name)] = one
        self._engine = engine
        self._batcher = batcher
        self._forget = forget
        self._spares: dict[str, Served] = {}
        self._users: Counter[object] = Counter()
        self._unused = asyncio.Condition()
        self._leaving: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def using(self, served: Served) -> AsyncIterator[None]:
        """Keep an attachment on the model, and its values as they are, inside the block."""
        values = _values(served)
        self._users[values] += 1
        try:
            yield
        finally:
            self._users[values] -= 1
            if not self._users[values]:
                del self._users[values]
                async with self._unused:
                    self._unused.notify_all()

    async def put(self, name: str, opened: Opened) -> Served:
        """Serve what was opened as ``name``; what had the name still answers what it has accepted.

        Raises:
            PetlError: it cannot be put on a model; what had the name keeps it.
        """
        before, spare = self.served.get(name), self._spares.get(name)
        served = None
        if before is not None and not self._used(before) and (opened.reader or before.lane.reader) is before.reader:
            # The batches of whoever comes meanwhile are computed after this, so it sees the new values alone.
            served = await self._batcher.alone(partial(self._engine.refresh, opened, before))
        if served is None and spare is not None:
            del self._spares[name]
            try:
                served = await self._batcher.alone(partial(self._engine.refresh, opened, spare))
            finally:
                if served is None:  # another method, a fault or a cancelled request: in any case it has no owner now
                    self._when_unused(spare, partial(self._take_off, spare))
        if served is None:
            served = await self._batcher.alone(partial(self._engine.attach, opened))
        self.served[name] = served
        if before is not None and before.key != served.key:
            self._when_unused(before, partial(self._retire, name, before))
        return served

    def drop(self, name: str) -> None:
        """Serve ``name`` no more; requests that were accepted before are still answered."""
        served = self.served.pop(name)
        for one in (served, self._spares.pop(name, None)):
            if one is not None:
                self._when_unused(one, partial(self._retire, name, one))

    def close(self) -> None:
        """Wait for nobody any more."""
        for task in self._leaving:
            task.cancel()

    def _used(self, served: Served) -> bool:
        return _values(served) in self._users

    async def _retire(self, name: str, served: Served) -> None:
        """Make what nobody uses the name's spare, or take it off the model."""
        if name in self.served and name not in self._spares and served.key is not None:
            self._spares[name] = served
            return
        await self._take_off(served)
        if name not in self.served:
            self._forget(name)

    async def _take_off(self, served: Served) -> None:
        await self._batcher.alone(partial(self._engine.remove, served))

    def _when_unused(self, served: Served, then: Callable[[], Awaitable[None]]) -> None:
        async def leave() -> None:
            async with self._unused:
                await self._unused.wait_for(lambda: not self._used(served))
            await then()

        task = asyncio.get_running_loop().create_task(leave())
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)


def _values(served: Served) -> object:
    """Return what stands for the values that compute an attachment's rows."""
    return served if served.key is None else served.key
