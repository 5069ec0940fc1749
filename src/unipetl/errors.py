"""Every error unipetl raises on purpose.

Each message says what failed, where, what was found, and what would work. All of them derive from
[PetlError][], so ``except unipetl.errors.PetlError`` catches every mistake a user can make and no
programming error of ours.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PetlError(Exception):
    """Base class of every deliberate error of unipetl."""


class MethodError(PetlError, ValueError):
    """A method, or one value on one of its axes, is not well formed."""


class NotationError(MethodError):
    """A method's text or YAML notation cannot be read."""


class PlanError(PetlError, ValueError):
    """A method makes no sense on this model; nothing was touched."""


class ArchitectureError(PlanError):
    """The model's architecture is unknown, or its modules are not where its table says."""


class AttachError(PetlError, RuntimeError):
    """An attachment cannot be made, found or removed; the model is as it was before the call."""


class FoldError(PetlError, ValueError):
    """A change cannot be folded into the model's own weights; the model is as it was before the call."""


class CombinationError(PetlError, ValueError):
    """Attachments cannot be combined in the way asked for; the message says which law would be broken."""


class StorageError(PetlError, RuntimeError):
    """An attachment cannot be written or read."""


class CorruptFileError(StorageError):
    """A file is damaged: a checksum, shape, name or number is wrong."""


class MismatchError(StorageError):
    """A file is sound but belongs to another base model, method or format version."""


class InteropError(PetlError, ValueError):
    """Somebody else's file or option values cannot be translated."""


class TaskError(PetlError, ValueError):
    """A task, its data or its model cannot be prepared."""


class DownloadError(TaskError):
    """Something must be fetched and cannot be."""


class UploadError(PetlError, RuntimeError):
    """Something cannot be pushed to the hub; nothing here has changed."""


class MissingPackageError(PetlError, ImportError):
    """A package that only some tasks need is not installed; the message has the command that installs it."""


class RecipeError(PetlError, ValueError):
    """A recipe or comparison plan is wrong; the message names the line and the field."""


class RunError(PetlError, RuntimeError):
    """A training run, or its directory, cannot be used."""


class ServingError(PetlError, RuntimeError):
    """A server cannot be started with these runs, or an attachment cannot be served."""


class RefusedError(ServingError):
    """A server refuses a request, or cannot answer it.

    Attributes:
        status: the HTTP status.
        detail: why, for people.
        retry_after: seconds after which another attempt makes sense; None if none does.
        faults: where in the request and what, if several things are wrong.
    """

    def __init__(
        self, status: int, detail: str, *, retry_after: int | None = None, faults: tuple[tuple[str, str], ...] = ()
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.retry_after = retry_after
        self.faults = faults


class CheckError(PetlError, AssertionError):
    """A check of unipetl.testing failed: a form or an architecture does not keep a promise."""


def nearest(name: str, options: Iterable[str]) -> str | None:
    """Return the option a misspelt ``name`` most probably meant, or None."""
    pool = sorted(set(options))
    lowered = {option.lower(): option for option in pool}
    found = difflib.get_close_matches(str(name).lower(), list(lowered), n=1, cutoff=0.55)
    return lowered[found[0]] if found else None


def unknown(what: str, name: object, options: Iterable[str]) -> str:
    """Say that ``name`` is no known ``what``, with the near match and every option."""
    pool = sorted(set(options))
    near = nearest(str(name), pool)
    hint = f" Did you mean {near!r}?" if near else ""
    return f"unknown {what} {name!r}.{hint} Known: {', '.join(pool)}."


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its class's name where it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
