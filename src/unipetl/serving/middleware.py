"""Around every request: the limit on its body, its line in the log, and its place in the metrics."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from unipetl.errors import RefusedError
from unipetl.serving.metrics import Metrics
from unipetl.serving.problems import HUNG_UP, problem

access = logging.getLogger("unipetl.serving.access")


class Measured:
    """Counts and logs every request; texts are never logged.

    Args:
        app: what answers.
        metrics: what counts.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), HUNG_UP  # unless an answer begins

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, watched)
        finally:
            seconds = time.perf_counter() - started
            route = getattr(scope.get("route"), "path", "other")  # a label takes few values
            self.metrics.request(route, status, seconds)
            fields: dict[str, Any] = {
                "method": scope["method"],
                "path": scope["path"][:200],
                "status": status,
                "seconds": round(seconds, 4),
            }
            access.info("%(method)s %(path)r %(status)s %(seconds)s s", fields, extra={"fields": fields})


class BodyLimit:
    """Refuses bodies that are too large, at once where their length is declared, else when it is reached; and too slow.

    Args:
        app: what answers.
        most: bytes.
        seconds: in which the whole body must come.
    """

    def __init__(self, app: ASGIApp, most: int, seconds: float) -> None:
        self.app = app
        self.most = most
        self.seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
        why = f"the body is larger than {self.most:,} bytes, which is the most that this server takes."
        if declared.isdigit() and int(declared) > self.most:
            await problem(RefusedError(413, why))(scope, receive, send)
            return
        got, whole = 0, False
        latest = asyncio.get_running_loop().time() + self.seconds

        async def counted() -> Message:
            nonlocal got, whole
            try:
                async with asyncio.timeout_at(None if whole else latest):  # behind the body comes only a hanging up
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, f"the body was not here within {self.seconds:g} s.") from None
            whole = whole or not message.get("more_body", False)
            got += len(message.get("body", b""))
            if got > self.most:
                raise HTTPException(413, why)  # the one error that passes through whoever reads the body
            return message

        await self.app(scope, counted, send)
