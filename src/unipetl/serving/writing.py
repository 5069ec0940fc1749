"""The settings of one text that is to be written: the run's own, a request's changes, and what there is room for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from unipetl.errors import RefusedError
from unipetl.serving.limits import Limits
from unipetl.serving.reader import Reader

#: Settings that mean nothing unless several beams are kept, or unless tokens are drawn.
_OF_BEAMS, _OF_DRAWING = ("length_penalty", "early_stopping"), ("temperature", "top_p", "top_k", "min_p", "typical_p")
_LEAST = ("min_new_tokens", "min_length")


@dataclass(frozen=True)
class Asked:
    """What a request says about writing.

    Attributes:
        changes: settings of ``generate``; those that it leaves to the run are not there.
        seed: None unless tokens are drawn.
    """

    changes: Mapping[str, Any]
    seed: int | None = None


def settings_for(reader: Reader, asked: Asked, length: int, limits: Limits) -> dict[str, Any]:
    """Return every setting for a text of ``length`` tokens; they depend on nothing else in its batch.

    Raises:
        RefusedError: 413, the text leaves no room.
    """
    chosen = {**reader.generation, **asked.changes}
    room = reader.room(length)
    most = min(chosen["max_new_tokens"], limits.max_new_tokens)
    if room is not None:
        if room < 1:
            raise RefusedError(413, f"an input of {length} tokens leaves the model no room to write.")
        most = min(most, room)
    chosen["max_new_tokens"] = most
    for name in _LEAST:
        if chosen.get(name):
            chosen[name] = min(chosen[name], most)
    chosen["do_sample"] = asked.seed is not None
    unused = _OF_DRAWING if asked.seed is None else ()
    if chosen.get("num_beams", 1) == 1:
        unused = (*unused, *_OF_BEAMS)
    return {name: value for name, value in chosen.items() if name not in unused}


def key_of(settings: Mapping[str, Any]) -> str:
    """Return a text that is equal for equal settings."""
    return json.dumps(settings, sort_keys=True, default=repr)
