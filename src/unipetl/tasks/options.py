"""A task's options: what a recipe's ``options:`` may say, checked before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from unipetl.errors import TaskError, nearest

Count = Annotated[int, Field(ge=1, strict=True)]
OptionsType = TypeVar("OptionsType", bound=BaseModel)

#: The examples that the paper's scripts choose checkpoints on: the first so many of the development set.
PAPER_DEV_CAP = 1_600


class SourceOptions(BaseModel):
    """Where examples come from, and which of them count.

    Args:
        train, validation, test: local files in place of the hub's splits: JSON lines, CSV, TSV or Parquet.
        also: name -> file: further sets that are scored at the end.
        dev_cap: use only the first so many validation examples to choose a checkpoint; the paper's scripts use 1600.
        evaluate_on: what the run is judged on; ``development`` is the validation set under ``dev_cap``, ``rest`` the
            examples that ``dev_cap`` leaves out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    train: str | None = None
    validation: str | None = None
    test: str | None = None
    also: dict[str, str] = Field(default_factory=dict)
    dev_cap: Count | None = None
    evaluate_on: Literal["validation", "test", "development", "rest"] | None = None


class ClassificationOptions(SourceOptions):
    """What a classification task can be told.

    Args:
        text, text_pair, label: names of columns.
        labels: the labels' names, in the order of their numbers.
        max_length: tokens that an input is cut to.
    """

    text: str | None = None
    text_pair: str | None = None
    label: str | None = None
    labels: Annotated[list[str], Field(min_length=2)] | None = None
    max_length: Count | None = None


class WritingOptions(SourceOptions):
    """What a task whose model writes can be told.

    Args:
        source, target: names of columns.
        max_source_length, max_target_length: tokens that inputs and targets are cut to in training.
        max_reference_length: tokens that references are cut to when texts are judged; 0 for no cut.
        prefix: text in front of every input of an encoder-decoder.
        prompt: what a model without encoder reads, with ``{source}`` where the input goes.
        source_language, target_language: codes for tokenizers of many languages, such as ``en_XX``.
        generation: arguments of transformers' ``GenerationConfig``, by their own names.
        metric: what the task is judged by, where there is a choice.
    """

    source: str | None = None
    target: str | None = None
    max_source_length: Count | None = None
    max_target_length: Count | None = None
    max_reference_length: Annotated[int, Field(ge=0, strict=True)] | None = None
    prefix: str | None = None
    prompt: str | None = None
    source_language: str | None = None
    target_language: str | None = None
    generation: dict[str, Any] = Field(default_factory=dict)
    metric: str | None = None


class LanguageOptions(SourceOptions):
    """What a language-modelling task can be told.

    Args:
        text: the name of the column that is learnt.
        prompt: the name of a column that comes before it and is read, not learnt; None for nothing.
        max_length: tokens that prompt and text together are cut to.
    """

    text: str = "text"
    prompt: str | None = None
    max_length: Count | None = None


def read_options(kind: type[OptionsType], given: Mapping[str, Any], task: str) -> OptionsType:
    """Return a task's options from plain data.

    Raises:
        TaskError: with the option and the near match of everything that is wrong.
    """
    try:
        return kind(**{str(name): value for name, value in given.items()})
    except ValidationError as error:
        raise TaskError("\n".join(_fault(one, kind, task) for one in error.errors())) from None


def _fault(one: Any, kind: type[BaseModel], task: str) -> str:
    name = ".".join(map(str, one["loc"]))
    if one["type"] == "extra_forbidden":
        near = nearest(name, kind.model_fields)
        hint = f" Did you mean {near!r}?" if near else ""
        return f"task {task!r} has no option {name!r}.{hint} Options: {', '.join(kind.model_fields)}."
    return f"task {task!r}, option {name!r}: {one['msg']} (found {one['input']!r})."
