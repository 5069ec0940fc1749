"""A folder's files as one commit on the hub."""

from __future__ import annotations

from pathlib import Path

from unipetl.errors import UploadError, first_line
from unipetl.hub.card import CARD
from unipetl.hub.fetching import FILES
from unipetl.hub.tokens import clean


def upload(
    folder: Path, repository: str, *, private: bool, revision: str | None, token: str | bool | None, message: str
) -> str:
    """Make the repository if there is none, and commit an attachment and its card; return the commit's address.

    Raises:
        UploadError: the hub refuses, or cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, LocalTokenNotFoundError

    api = HfApi(token=clean(token, UploadError))
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repository, branch=revision, exist_ok=True)
        done = api.upload_folder(
            repo_id=repository, folder_path=folder, allow_patterns=[*FILES, CARD], commit_message=message,
            revision=revision,
        )  # fmt: skip
    except HFValidationError as error:
        raise UploadError(f"{repository!r} is no name of a repository ('user/name'): {first_line(error)}") from error
    except LocalTokenNotFoundError as error:
        raise UploadError("the hub needs to know who you are: `hf auth login`, or HF_TOKEN, or token=...") from error
    except Exception as error:  # the hub's client and its transports raise whatever they like
        status = getattr(getattr(error, "response", None), "status_code", None)
        hint = (
            " Log in (`hf auth login`, HF_TOKEN or token=...) with a token that may write there."
            if status in (401, 403)
            else ""
        )
        said = f"{type(error).__name__}: {first_line(error).rstrip('.')}"
        raise UploadError(f"cannot push to {repository!r}: {said}.{hint} Nothing here has changed.") from error
    return str(done.commit_url)
