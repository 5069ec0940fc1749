"""The ``training:`` part of a recipe: transformers' own arguments, by their own names, checked by their types.

One argument is unipetl's: ``max_tokens_per_batch``, see [unipetl.experiment.batches][].
"""

from __future__ import annotations

import dataclasses
import enum
import typing
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from unipetl.errors import RunError, nearest
from unipetl.experiment.marked import Fault

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import TrainingArguments

#: Arguments that a run sets itself -> where the choice is made instead.
OURS = {
    "output_dir": "the run's directory is",
    "seed": "the recipe's `seeds` is",
    "do_train": "the recipe's `method` decides it",
    "do_eval": "every run ends with an evaluation",
    "do_predict": "every run ends with an evaluation",
    "resume_from_checkpoint": "a run resumes by itself",
    "predict_with_generate": "the task decides it",
    "generation_config": "use generation_num_beams and generation_max_length",
    "disable_tqdm": "progress goes to whoever starts the run",
    "push_to_hub": "a run writes to its directory only",
    "hub_token": "a recipe is no place for a secret; `hf auth login` or HF_TOKEN is, for `unipetl push`",
    "push_to_hub_token": "a recipe is no place for a secret; `hf auth login` or HF_TOKEN is, for `unipetl push`",
    "deepspeed": "use PetlTrainer's parent, transformers' Trainer, with it",
    "fsdp": "use PetlTrainer's parent, transformers' Trainer, with it",
    "fsdp_config": "use PetlTrainer's parent, transformers' Trainer, with it",
    "parallelism_config": "use PetlTrainer's parent, transformers' Trainer, with it",
}
#: unipetl's own arguments, which go to its Trainer classes and not to TrainingArguments.
OWN: dict[str, Any] = {"max_tokens_per_batch": Annotated[int, Field(ge=1, strict=True)] | None}
#: Where a run differs from transformers' defaults: nothing is reported to a service, and two checkpoints are kept.
DEFAULTS: dict[str, Any] = {"report_to": "none", "save_total_limit": 2, "logging_nan_inf_filter": False}


def check(training: Mapping[str, Any]) -> tuple[dict[str, Any], list[Fault]]:
    """Return the arguments in their proper types (``"1e-3"`` is a number where one is due), and what is wrong.

    YAML's ``no`` is taken for the word where a word is due, as in ``save_strategy: no``.
    """
    known = _fields() | OWN
    fine: dict[str, Any] = {}
    wrong: list[Fault] = []
    for name, value in training.items():
        if name in OURS:
            wrong.append(Fault((name,), f"a recipe cannot set this: {OURS[name]}."))
        elif name not in known:
            near = nearest(str(name), known)
            hint = f" Did you mean {near!r}?" if near else ""
            wrong.append(Fault((name,), f"transformers' TrainingArguments has no such argument.{hint}"))
        else:
            try:
                fine[name] = _read(known[name], value)
            except ValueError as error:
                wrong.append(Fault((name,), _first(error, value)))
    return fine, wrong


def build(training: Mapping[str, Any], output_dir: Path, seed: int, *, generates: bool) -> TrainingArguments:
    """Return the training arguments of one run.

    Raises:
        RunError: transformers refuses them.
    """
    import torch
    from transformers import Seq2SeqTrainingArguments, TrainingArguments

    kind = Seq2SeqTrainingArguments if generates else TrainingArguments
    given = {**DEFAULTS, "dataloader_pin_memory": torch.cuda.is_available(), **training}
    given = {name: value for name, value in given.items() if name not in OWN}
    strange = set(given) - {field.name for field in dataclasses.fields(kind)}
    if strange:
        raise RunError(f"training: {min(strange)!r} is for tasks that generate text, and this one classifies.")
    if generates:
        given["predict_with_generate"] = True
    try:
        return kind(output_dir=str(output_dir), seed=seed, disable_tqdm=True, **given)
    except (ValueError, TypeError, ImportError) as error:
        raise RunError(f"training: transformers refuses these arguments: {error}") from error


def own(training: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that are unipetl's, for its Trainer classes."""
    return {name: training[name] for name in OWN if name in training}


def schema() -> dict[str, Any]:
    """Return the JSON schema of the ``training:`` mapping."""
    properties = {}
    for name, hint in (_fields() | OWN).items():
        if name in OURS:
            continue
        words = _words(hint)
        properties[name] = {"enum": words} if words else TypeAdapter(hint).json_schema()
    return {"type": "object", "additionalProperties": False, "properties": properties}


@lru_cache(maxsize=1)
def _fields() -> dict[str, Any]:
    from transformers import Seq2SeqTrainingArguments

    hints = typing.get_type_hints(Seq2SeqTrainingArguments)
    return {one.name: hints[one.name] for one in dataclasses.fields(Seq2SeqTrainingArguments) if one.init}


def _words(hint: Any) -> list[str]:
    """Return the values of the enumeration a hint names, or nothing."""
    for part in typing.get_args(hint):
        if isinstance(part, type) and issubclass(part, enum.Enum):
            return [str(one.value) for one in part]
    return []


def _read(hint: Any, value: Any) -> Any:
    words = _words(hint)
    if words:
        word = "no" if value is False and "no" in words else value
        if word not in words:
            near = nearest(str(word), words)
            raise ValueError(f"unknown value.{f' Did you mean {near!r}?' if near else ''} Known: {', '.join(words)}")
        return word
    return _adapter(hint).validate_python(value)


@lru_cache
def _adapter(hint: Any) -> TypeAdapter[Any]:
    return TypeAdapter(hint, config=ConfigDict(allow_inf_nan=False))


def _first(error: ValueError, value: Any) -> str:
    if isinstance(error, ValidationError):
        said = dict.fromkeys(one["msg"] for one in error.errors())
        return f"{', or '.join(said)} (found {value!r})."
    return f"{error} (found {value!r})."
