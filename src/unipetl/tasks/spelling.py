"""Inputs and targets of a writing task as ids: for a model with an encoder, and for one that reads a prompt."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

from transformers import DataCollatorForSeq2Seq, PreTrainedModel

from unipetl.errors import TaskError
from unipetl.tasks.prompted import PromptCollator

Ids = list[list[int]]
Collator = Callable[[list[dict[str, Any]]], Mapping[str, Any]]

#: Where a prompt's input goes.
SLOT = "{source}"


class Speller(ABC):
    """Turns texts into ids. Each method returns the ids, none too long, and how many texts were cut for it."""

    @abstractmethod
    def sources(self, texts: Sequence[str], length: int) -> tuple[Ids, int]:
        """Return what the model reads."""

    @abstractmethod
    def targets(self, texts: Sequence[str], length: int | None) -> tuple[Ids, int]:
        """Return what the model should write, its end included; ``length`` is None for no cut."""

    @abstractmethod
    def collator(self, model: PreTrainedModel) -> Collator:
        """Return what makes batches of rows."""


@final
class EncoderDecoderSpeller(Speller):
    """The encoder reads the input behind a prefix; the decoder writes the target."""

    def __init__(self, tokenizer: Any, prefix: str) -> None:
        self.tokenizer, self.prefix = tokenizer, prefix

    def sources(self, texts: Sequence[str], length: int) -> tuple[Ids, int]:
        """See [Speller.sources][]."""
        return self._cut("text", [self.prefix + text for text in texts], length)

    def targets(self, texts: Sequence[str], length: int | None) -> tuple[Ids, int]:
        """See [Speller.targets][]."""
        return self._cut("text_target", list(texts), length)

    def collator(self, model: PreTrainedModel) -> Collator:
        """See [Speller.collator][]; the decoder's inputs are made from the labels, which label smoothing needs."""
        return DataCollatorForSeq2Seq(self.tokenizer, model=model)

    def _cut(self, argument: str, texts: list[str], length: int | None) -> tuple[Ids, int]:
        ids = [list(row) for row in self.tokenizer(**{argument: texts})["input_ids"]]
        long = [number for number, row in enumerate(ids) if length is not None and len(row) > length]
        if long:
            some = {argument: [texts[number] for number in long]}
            cut = self.tokenizer(**some, truncation=True, max_length=length)["input_ids"]
            for number, row in zip(long, cut, strict=True):
                ids[number] = list(row)
        return ids, len(long)


@final
class PromptSpeller(Speller):
    """A model without encoder reads a prompt with the input in it, and writes on.

    What is cut is the input, never the prompt around it. The parts are spelt one by one, in training as in generation.

    Raises:
        TaskError: the prompt has no place for the input.
    """

    def __init__(self, tokenizer: Any, prompt: str, task: str) -> None:
        if prompt.count(SLOT) != 1:
            raise TaskError(
                f"task {task!r}, option 'prompt': it needs {SLOT} once, where the input goes; found {prompt!r}."
            )
        self.tokenizer = tokenizer
        before, after = prompt.split(SLOT)
        start = [number for number in tokenizer("")["input_ids"] if number != tokenizer.eos_token_id]
        self.before, self.after = start + self._ids([before])[0], self._ids([after])[0]

    def sources(self, texts: Sequence[str], length: int) -> tuple[Ids, int]:
        """See [Speller.sources][]."""
        room = length - len(self.before) - len(self.after)
        if room < 1:
            raise TaskError(f"the prompt alone has {length - room} tokens, and {length} are allowed with the input.")
        ids = self._ids(texts)
        return [self.before + row[:room] + self.after for row in ids], sum(len(row) > room for row in ids)

    def targets(self, texts: Sequence[str], length: int | None) -> tuple[Ids, int]:
        """See [Speller.targets][]; a target that is cut has an end all the same."""
        ids = self._ids(texts)
        room = None if length is None else max(length - 1, 0)
        cut = 0 if room is None else sum(len(row) > room for row in ids)
        return [[*row[:room], self.tokenizer.eos_token_id] for row in ids], cut

    def collator(self, model: PreTrainedModel) -> Collator:
        """See [Speller.collator][]."""
        del model
        return PromptCollator(self.tokenizer.pad_token_id)

    def _ids(self, texts: Sequence[str]) -> Ids:
        return [list(row) for row in self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]]
