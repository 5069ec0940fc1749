"""What a server does, without HTTP: finds attachments, reads texts, batches rows, loads and unloads.

Everything here is called on the event loop. Texts are read in one thread and computed in another; a third one reads
what is to be loaded.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from unipetl.errors import PetlError, RefusedError
from unipetl.serving.batching import Batcher
from unipetl.serving.engine import Action, Engine, Served, Work
from unipetl.serving.limits import Limits, near
from unipetl.serving.metrics import Metrics
from unipetl.serving.reader import Row
from unipetl.serving.roster import Roster
from unipetl.serving.source import Opened, Source
from unipetl.serving.writing import Asked, key_of, settings_for

T = TypeVar("T")
logger = logging.getLogger("unipetl.serving")
_ENDPOINT = {"classify": "/v1/classify", "generate": "/v1/generate", "embed": "/v1/embed"}


class Service:
    """The state of one running server.

    Args:
        engine: the models.
        served: what is served at the start.
        limits: what is taken at most.
        allow_load: attachments may be loaded and unloaded by requests, from this folder; None if not.
        metrics: what is counted.

    Attributes:
        abandoned: requests that were given up when the grace time was over.
    """

    def __init__(
        self,
        engine: Engine,
        served: Sequence[Served],
        limits: Limits | None = None,
        *,
        allow_load: Path | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self.engine = engine
        self.limits = limits or Limits()
        self.metrics = metrics or Metrics()
        self.allow_load = None if allow_load is None else allow_load.resolve()
        self.abandoned = 0
        self._loading = asyncio.Lock()
        self._begun: set[asyncio.Task[tuple[Served, bool]]] = set()
        self._texts = ThreadPoolExecutor(1, thread_name_prefix="unipetl-texts")
        self._folders = ThreadPoolExecutor(1, thread_name_prefix="unipetl-folders")
        self._alone = itertools.count()
        self.batcher = Batcher(self.engine.compute, self.limits, self.metrics.watch())
        self._roster = Roster(engine, served, self.batcher, self.metrics.forget)
        self.metrics.watch_state(lambda: self.batcher.waiting, lambda: len(self.served))

    @property
    def served(self) -> Mapping[str, Served]:
        """What is served, by name."""
        return self._roster.served

    @property
    def ready(self) -> bool:
        """Whether requests are taken."""
        return self.batcher.alive

    def start(self) -> None:
        """Begin to compute."""
        self.batcher.start()

    async def close(self) -> int:
        """Finish what was accepted, within the grace time, and return how many texts were given up."""
        given_up = await self.batcher.close(self.limits.grace)
        self._roster.close()
        for pool in (self._texts, self._folders):
            pool.shutdown(wait=False, cancel_futures=True)
        return given_up

    def find(self, name: str | None, action: Action) -> Served:
        """Return the attachment ``name``, or the bare model, if it can do ``action``.

        Raises:
            RefusedError: 404, there is none; 409, it does something else.
        """
        if name is None:
            bare = self.engine.bare(action)
            if bare is None:
                raise RefusedError(409, f"no model here can {action}.")
            return bare
        served = self._named(name)
        if action not in served.actions:
            works = " or ".join(_ENDPOINT[one] for one in served.actions)
            raise RefusedError(409, f"attachment {name!r} is one for {served.reader.kind}: POST to {works}.")
        return served

    async def answer(
        self,
        action: Action,
        name: str | None,
        texts: list[str],
        *,
        asked: Asked | None = None,
        pooling: str = "mean",
        normalize: bool = False,
    ) -> list[Any]:
        """Return the answers to ``texts``, in their order.

        Args:
            action: what to do.
            name: the attachment; None for the bare model.
            texts: at least one.
            asked: settings of writing.
            pooling: of embeddings, ``mean`` or ``last``.
            normalize: whether embeddings get the length 1.

        Raises:
            RefusedError: the request is refused, or it took too long (504).
            PetlError: a text could not be computed.
        """
        self.limits.check_texts(texts)
        served = self.find(name, action)
        try:
            async with self._roster.using(served), asyncio.timeout(self.limits.timeout):
                with self.batcher.room(len(texts)):
                    rows = await self._read(served, texts)
                    waiting = []
                    for number, row in enumerate(rows):
                        length = len(row["input_ids"])
                        self.limits.check_tokens(number, length)
                        work = Work(action, served, row, pooling=pooling, normalize=normalize)
                        if action == "generate":
                            work = self._writing(work, asked or Asked({}), number)
                        waiting.append((self._key(work), length, work))
                    futures = self.batcher.submit(waiting)
                try:
                    return await asyncio.gather(*futures)
                finally:  # once one has failed, nobody waits for the others
                    for one in futures:
                        one.cancel()
        except TimeoutError:
            seconds = self.limits.timeout
            raise RefusedError(504, f"not answered within {seconds:g} s; what was left of it was dropped.") from None

    async def load(self, name: str, path: str, *, replace: bool) -> tuple[Served, bool]:
        """Serve what lies at ``path`` under the folder that may be loaded from.

        Requests that were accepted before are still answered by what had the name; no other request waits for more
        than one batch. Once begun it goes to its end, also where nobody waits for it any more.

        Returns:
            What is served now, and whether the name is new.

        Raises:
            RefusedError: it may not be loaded, or cannot be.
        """
        begun = asyncio.get_running_loop().create_task(self._put(name, self._allowed(path), replace=replace))
        self._begun.add(begun)
        begun.add_done_callback(self._ended)
        return await asyncio.shield(begun)

    async def _put(self, name: str, folder: Path, *, replace: bool) -> tuple[Served, bool]:
        async with self._loading:
            before = self.served.get(name)
            if before is not None and not replace:
                raise RefusedError(409, f"there is an attachment {name!r} already; PUT replaces it.")
            if before is None and len(self.served) >= self.limits.max_attachments:
                raise RefusedError(409, f"this server holds {len(self.served)} attachments and takes no more.")
            if not self.ready:
                raise RefusedError(503, "this server is stopping.", retry_after=5)
            try:
                opened = await _within(self._folders, partial(self._open, name, folder))
                served = await self._roster.put(name, opened)
            except RefusedError:
                raise
            except PetlError as error:
                raise RefusedError(422, str(error)) from error
        return served, before is None

    def _ended(self, begun: asyncio.Task[tuple[Served, bool]]) -> None:
        self._begun.discard(begun)
        error = None if begun.cancelled() else begun.exception()
        if error is not None and not isinstance(error, RefusedError):  # it may be that nobody waits for it
            logger.error("an attachment could not be loaded", exc_info=error)

    async def unload(self, name: str) -> None:
        """Serve an attachment no more; requests that were accepted before are still answered.

        Raises:
            RefusedError: nothing may be unloaded, or there is no such attachment.
        """
        self._check_loading()
        async with self._loading:
            self._named(name)
            self._roster.drop(name)

    def _named(self, name: str) -> Served:
        served = self.served.get(name)
        if served is None:
            raise RefusedError(404, f"there is no attachment {name!r} here.{near(name, list(self.served))}")
        return served

    def _writing(self, work: Work, asked: Asked, number: int) -> Work:
        settings = settings_for(work.served.reader, asked, len(work.row["input_ids"]), self.limits)
        seed = None if asked.seed is None else asked.seed + number
        return Work("generate", work.served, work.row, settings=settings, seed=seed)

    def _key(self, work: Work) -> Hashable:
        """Rows are written together if they are written alike; a row that is drawn is written alone."""
        if work.seed is not None:
            return work.action, next(self._alone)
        return work.action, id(work.served.lane), key_of(work.settings)

    async def _read(self, served: Served, texts: list[str]) -> list[Row]:
        try:
            rows: list[Row] = await _within(self._texts, partial(self.engine.read, served, texts))
        except PetlError as error:
            raise RefusedError(422, str(error)) from error
        return rows

    def _check_loading(self) -> Path:
        if self.allow_load is None:
            raise RefusedError(
                403, "this server was started without --allow-load DIR: what it serves can not be changed."
            )
        return self.allow_load

    def _open(self, name: str, folder: Path) -> Opened:
        """Read what a folder holds: an attachment, a run, or the one run of an experiment."""
        found = Source(name, folder).each()
        if len(found) > 1:
            seeds = ", ".join(one.path.name for one in found)
            raise RefusedError(422, f"{str(folder)!r} holds several runs ({seeds}); name one of them.")
        return self.engine.open(Source(name, self._allowed(str(found[0].path))))  # a link in it may lead elsewhere

    def _allowed(self, path: str) -> Path:
        allowed = self._check_loading()
        try:
            folder = (allowed / path).resolve()
            inside = folder.is_relative_to(allowed) and folder.is_dir()
        except (OSError, ValueError, RuntimeError):  # no path at all, or a circle of links
            inside = False
        if not inside:
            raise RefusedError(403, f"{path!r} is no folder under the one that attachments may be loaded from.")
        return folder


async def _within(pool: ThreadPoolExecutor, function: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(pool, function)
