"""An attachment's files from the hub: by repository and revision, through the cache, or from the cache alone."""

from __future__ import annotations

import re
from pathlib import Path

from unipetl.errors import DownloadError, StorageError, first_line
from unipetl.hub.tokens import clean
from unipetl.saved import DESCRIPTION, TENSORS

#: The only files that are ever fetched.
FILES = (DESCRIPTION, TENSORS)
_PART = re.compile(r"[A-Za-z0-9][\w.-]*")


def is_repository(name: str | Path) -> bool:
    """Return whether ``name`` is written as ``user/name``, and is no local folder or file."""
    return isinstance(name, str) and name.count("/") == 1 and is_hub_model(name)


def is_hub_model(name: str) -> bool:
    """Return whether ``name`` can be a model's on the hub (``user/name``, or one such as ``gpt2``), and no path."""
    return bool(name) and all(map(_PART.fullmatch, name.split("/"))) and name.count("/") < 2 and not Path(name).exists()


def fetch(
    repository: str,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Path:
    """Return the folder in the hub's cache that holds an attachment; what is missing is fetched.

    Args:
        repository: ``user/name``.
        revision: a branch, tag or commit; None is the main branch.
        token: None is the one of `hf auth login`, or of the environment.
        cache_dir: None is the hub's own cache.
        local_files_only: never ask the hub.

    Raises:
        DownloadError: it cannot be had; the message says what would work.
        StorageError: the repository holds no attachment.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    token = clean(token, DownloadError)
    at = f" at revision {revision!r}" if revision else ""
    try:
        folder = Path(
            snapshot_download(
                repository, revision=revision, token=token, cache_dir=cache_dir, local_files_only=local_files_only,
                allow_patterns=list(FILES),
            )
        )  # fmt: skip
    except GatedRepoError as error:
        raise DownloadError(
            f"{repository!r} is gated: accept its terms on the hub, and log in (`hf auth login`, or token=...)."
        ) from error
    except RevisionNotFoundError as error:
        raise DownloadError(f"{repository!r} on the hub has no revision {revision!r}.") from error
    except RepositoryNotFoundError as error:
        raise DownloadError(
            f"{repository!r} is no folder here, and the hub has no such repository, or shows it to its owner alone. "
            "Check the name; log in (`hf auth login`, or token=...) if it is private."
        ) from error
    except LocalEntryNotFoundError as error:
        why = "local_files_only=True" if local_files_only else "the hub cannot be reached"
        raise DownloadError(
            f"{repository!r}{at} is no folder here and not in the hub's cache, and {why}. Fetch it once where there is "
            "a network, or copy its folder here and give the path."
        ) from error
    except HFValidationError as error:
        raise DownloadError(f"{repository!r} is no name of a repository: {first_line(error)}") from error
    except Exception as error:  # the hub's client and its transports raise whatever they like
        raise DownloadError(
            f"{repository!r}{at} is no folder here, and the hub gave nothing ({type(error).__name__}: "
            f"{first_line(error)})."
        ) from error
    if not (folder / DESCRIPTION).is_file():
        raise StorageError(
            f"{repository!r} on the hub{at} has no {DESCRIPTION}: it holds no attachment of unipetl. An adapter of "
            "PEFT or AdapterHub is read by unipetl.interop, from a local folder."
        )
    return folder
