"""Push an attachment to the model hub, with a card made from it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from torch import nn

from unipetl.attaching import Attachment
from unipetl.files import write_text
from unipetl.hub.card import CARD, Facts, card
from unipetl.hub.fetching import is_hub_model
from unipetl.hub.uploading import upload
from unipetl.saved import read
from unipetl.storage import save


def push_to_hub(
    model: nn.Module | Attachment,
    repository: str,
    *,
    name: str | None = None,
    base_model: str | None = None,
    private: bool = False,
    revision: str | None = None,
    token: str | bool | None = None,
    message: str = "Upload an attachment of unipetl",
) -> str:
    """Push an attachment to the hub: its two files, and a card. The base's weights stay where they are.

    Args:
        model: a model with attachments, or one attachment.
        repository: ``user/name``; made if there is none.
        name: which attachment; None if there is only one.
        base_model: the base's name on the hub, for the card; None is where the model was loaded from.
        private: whether a new repository is private.
        revision: a branch to push to, made if there is none; None is the main one.
        token: None is the one of `hf auth login`, or of the environment.
        message: of the commit.

    Returns:
        The commit's address.

    Raises:
        AttachError: there is no such attachment.
        UploadError: the hub refuses, or cannot be reached.
    """
    attached = model.model if isinstance(model, Attachment) else model
    chosen = model.name if isinstance(model, Attachment) and name is None else name
    with tempfile.TemporaryDirectory() as place:
        folder = save(attached, Path(place) / "attachment", name=chosen)
        base = base_model if base_model is not None else hub_name(attached)
        write_card(folder, repository, Facts(base=base))
        return upload(folder, repository, private=private, revision=revision, token=token, message=message)


def write_card(folder: Path, repository: str, facts: Facts) -> Path:
    """Write the card of the attachment in ``folder`` beside it, and return the card's path."""
    path = folder / CARD
    write_text(path, card(read(folder, allow_nonfinite=True), repository, facts))
    return path


def hub_name(model: Any) -> str | None:
    """Return the name on the hub that a model was loaded by, or None where that was a folder."""
    found = str(getattr(getattr(model, "config", None), "name_or_path", "") or "")
    return found if is_hub_model(found) else None
