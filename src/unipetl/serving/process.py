"""One process that serves: a socket, signals, a log, and an end that loses nothing.

At SIGTERM or SIGINT the server takes no new requests, finishes those that it has accepted within the grace time, and
ends with exit code 0; with 1 if something had to be given up. A second SIGINT ends it at once.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import math
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TextIO

import uvicorn

from unipetl.errors import ServingError
from unipetl.serving.app import create_app
from unipetl.serving.service import Service

SIGNALS = (signal.SIGTERM, signal.SIGINT)
logger = logging.getLogger("unipetl.serving")


class Lines(logging.Formatter):
    """Log records as text for people, or as one JSON object a line.

    Args:
        as_json: which.
    """

    def __init__(self, *, as_json: bool) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")
        self.as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as a line."""
        if not self.as_json:
            return super().format(record)
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        line = {"time": when, "level": record.levelname.lower(), "logger": record.name}
        fields = getattr(record, "fields", None)
        line |= fields if isinstance(fields, dict) else {"message": record.getMessage()}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class _Server(uvicorn.Server):
    """uvicorn's server, with an end that is no failure: the signals that it stopped for are not raised again."""

    def __init__(self, config: uvicorn.Config, stopping: Callable[[], None]) -> None:
        super().__init__(config)
        self._stopping = stopping

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {one: signal.signal(one, self.handle_exit) for one in SIGNALS}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        self._stopping()


def bind(host: str, port: int) -> socket.socket:
    """Take an address, before anything is loaded; nobody can connect yet.

    Raises:
        ServingError: it cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    taken = socket.socket(family, socket.SOCK_STREAM)
    try:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((host, port))
    except (OSError, OverflowError) as error:
        taken.close()
        why = getattr(error, "strerror", None) or error
        elsewhere = getattr(error, "errno", None) == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror)
        hint = (
            "--host takes an address of this machine, such as 127.0.0.1."
            if elsewhere
            else "Another --port may be free."
        )
        raise ServingError(f"cannot listen on {host}:{port}: {why}. {hint}") from error
    return taken


def address(taken: socket.socket) -> str:
    """Return a socket's address as a URL."""
    host, port = taken.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run(service: Service, taken: socket.socket, *, as_json: bool = False, stream: TextIO | None = None) -> int:
    """Serve until a signal comes, and return the exit code.

    Args:
        service: what to serve.
        taken: an address, from [bind][].
        as_json: log one JSON object a line.
        stream: where the log goes; None for standard error.
    """
    _log_to(stream or sys.stderr, as_json=as_json)
    app = create_app(service)
    loop: list[asyncio.AbstractEventLoop] = []

    def stopping() -> None:
        loop[0].call_soon_threadsafe(service.batcher.drain)

    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        ws="none",
        timeout_graceful_shutdown=max(1, math.ceil(service.limits.grace)),
    )
    server = _Server(config, stopping)

    async def serve() -> None:
        loop.append(asyncio.get_running_loop())
        await server.serve(sockets=[taken])

    logger.info("serving %d attachments on %s", len(service.served), address(taken))
    asyncio.run(serve())
    given_up = int(getattr(app.state, "given_up", 0)) + service.abandoned
    logger.info("stopped; %s", f"{given_up} texts were given up" if given_up else "everything accepted was answered")
    return 1 if given_up else 0


def _log_to(stream: TextIO, *, as_json: bool) -> None:
    handler = logging.StreamHandler(stream)
    handler.setFormatter(Lines(as_json=as_json))
    for name in ("unipetl.serving", "uvicorn.error"):
        one = logging.getLogger(name)
        one.handlers = [handler]
        one.propagate = False
    logging.getLogger("unipetl.serving").setLevel(logging.INFO)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
