"""How a model writes: a task's settings, a recipe's changes, and what both are called for either kind of model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import GenerationConfig

from unipetl.errors import TaskError, nearest

#: Settings that are whole numbers, and numbers; transformers finds out while it writes, or never.
COUNTS = ("num_beams", "max_length", "min_length", "max_new_tokens", "min_new_tokens", "no_repeat_ngram_size", "top_k")
NUMBERS = ("length_penalty", "repetition_penalty", "temperature", "top_p")


def check_names(changes: Mapping[str, Any], task: str) -> None:
    """See that transformers knows every setting, and that counts are counts.

    Raises:
        TaskError: it does not, with the nearest; or one is no number.
    """
    known = [name for name in GenerationConfig().to_dict() if not name.startswith(("_", "transformers"))]
    for name in changes:
        if name not in known:
            near = nearest(name, known)
            hint = f" Did you mean {near!r}?" if near else ""
            raise TaskError(f"task {task!r}, option 'generation': transformers has no setting {name!r}.{hint}")
        what = "whole number from 0" if name in COUNTS else "number" if name in NUMBERS else None
        if what is not None and not _is_number(changes[name], whole=name in COUNTS):
            raise TaskError(f"task {task!r}, option 'generation': {name} should be a {what}; found {changes[name]!r}.")


def _is_number(value: Any, *, whole: bool) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, int) and value >= 0 if whole else isinstance(value, (int, float))


def settings(
    given: Mapping[str, Any], changes: Mapping[str, Any], *, task: str, decoder_only: bool, room: int | None
) -> tuple[dict[str, Any], list[str]]:
    """Return the arguments of ``generate``, and notes.

    Args:
        given: the task's, with ``max_length`` and ``min_length`` for the written text.
        changes: the recipe's, by transformers' own names.
        task: its name, for messages.
        decoder_only: whether the model has no encoder; lengths then are those of new tokens, for it writes on in the
            prompt's line.
        room: tokens that the model can write at most; None if nothing bounds it.

    Raises:
        TaskError: transformers knows no such setting, or refuses a value.
    """
    check_names(changes, task)
    chosen = {"do_sample": False, **given, **changes}
    notes = []
    for name in ("max_length", "min_length", "max_new_tokens", "min_new_tokens"):
        if room is not None and isinstance(chosen.get(name), int) and chosen[name] > room:
            notes.append(f"{name} of what is written is {chosen[name]}, and the model has room for {room} tokens.")
            chosen[name] = room
    least, most = chosen.get("min_length"), chosen.get("max_length")
    if least is not None and most is not None and least > most:
        raise TaskError(f"task {task!r}, option 'generation': min_length is {least}, above max_length, {most}.")
    if decoder_only:
        renamed = {"max_length": "max_new_tokens", "min_length": "min_new_tokens"}
        chosen = {renamed.get(name, name): value for name, value in chosen.items()}
    try:
        GenerationConfig(**chosen).validate()
    except (ValueError, TypeError) as error:
        raise TaskError(f"task {task!r}, option 'generation': transformers refuses these settings: {error}") from error
    return chosen, notes
