"""A computation in a process of its own, with a limit on its memory: what it takes or breaks, it does alone."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from unipetl.errors import CheckError

#: What torch says on a CPU that has no room; it has no exception of its own for this.
_NO_ROOM = "DefaultCPUAllocator: can't allocate memory"


def is_no_room(error: BaseException) -> bool:
    """Return whether an error says that there was no memory left."""
    return isinstance(error, MemoryError) or _NO_ROOM in str(error)


def in_a_process(work: Callable[..., Any], *arguments: Any, memory: int, prepare: tuple[str, ...] = ()) -> Any:
    """Return what ``work(*arguments)`` does in a new process.

    The first call starts a server that has imported ``prepare``; later ones are forked from it in milliseconds.

    Args:
        work: a function of a module; it raises nothing.
        arguments: what it is given; they and the result are sent between processes.
        memory: how many bytes the process may hold of its own, where the system keeps such limits (Linux).
        prepare: modules that the server imports.

    Raises:
        CheckError: the process ended without a result, killed by the system for instance.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", *prepare])
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, memory, work, arguments), daemon=True)
    process.start()
    sender.close()
    try:
        with receiver:
            result = receiver.recv()
    except EOFError:
        process.join()
        raise CheckError(f"its process ended without a result (exit code {process.exitcode})") from None
    process.join()
    return result


def _send(sender: Connection, memory: int, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    import resource  # POSIX alone has it, like the server that forks

    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = memory if hard == resource.RLIM_INFINITY else min(memory, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    sender.send(work(*arguments))
    sender.close()
