"""A tokenizer for a model that reads letters and writes phonemes: one character, one id, two alphabets."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, final

import torch

from unipetl.errors import TaskError
from unipetl.files import from_json

FILE = "alphabet.json"


@final
@dataclass(frozen=True)
class Alphabet:
    """Letters and phonemes by id; the two share ids, for the encoder never reads phonemes nor the decoder letters.

    Args:
        letters: letter -> id, what words are spelt with.
        phonemes: phoneme -> id, what the model writes.
    """

    letters: Mapping[str, int]
    phonemes: Mapping[str, int]
    _sounds: Mapping[int, str] = field(init=False, repr=False, compare=False)

    pad_token_id: ClassVar[int] = 0
    bos_token_id: ClassVar[int] = 1
    eos_token_id: ClassVar[int] = 2
    model_input_names: ClassVar[list[str]] = ["input_ids", "attention_mask"]

    def __post_init__(self) -> None:
        for characters in (self.letters, self.phonemes):
            if len(set(characters.values())) != len(characters) or min(characters.values(), default=3) < 3:
                raise TaskError("an alphabet's ids must differ from each other and from 0 to 2, which are special.")
        object.__setattr__(self, "_sounds", {number: sound for sound, number in self.phonemes.items()})

    def spells(self, word: str) -> bool:
        """Say whether every character of ``word`` is a letter of this alphabet."""
        return all(letter in self.letters for letter in word)

    def sounds(self, phonemes: str) -> bool:
        """Say whether every character of ``phonemes`` is a phoneme of this alphabet."""
        return all(sound in self.phonemes for sound in phonemes)

    def encode(self, word: str) -> list[int]:
        """Return the ids of a word, between the start and the end.

        Raises:
            TaskError: it has a character that is no letter of this alphabet.
        """
        if not self.spells(word):
            wrong = sorted(set(word) - set(self.letters))
            raise TaskError(f"{word!r} has characters that the model was not trained on: {wrong}. Use English letters.")
        return [self.bos_token_id, *(self.letters[letter] for letter in word), self.eos_token_id]

    def encode_target(self, phonemes: str) -> list[int]:
        """Return the start, the ids of phonemes, and the end: what the pretrained decoder writes."""
        return [self.bos_token_id, *(self.phonemes[sound] for sound in phonemes), self.eos_token_id]

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        """Return the phonemes that ``ids`` stand for; special, negative and unknown ids are left out."""
        del skip_special_tokens  # they have no spelling here
        return "".join(self._sounds.get(int(number), "") for number in ids)

    def batch_decode(self, batch: Iterable[Iterable[int]], skip_special_tokens: bool = True) -> list[str]:
        """Return [decode][] of every row."""
        return [self.decode(ids, skip_special_tokens) for ids in batch]

    def pad(self, rows: Sequence[Mapping[str, Sequence[int]]]) -> dict[str, Any]:
        """Return a batch of rows with ``input_ids`` and, on all or none, ``labels``.

        Returns:
            ``input_ids`` and ``attention_mask`` (batch, longest input) and ``labels`` (batch, longest label), the
            latter filled up with -100, which the loss leaves out.
        """
        ids = _filled([row["input_ids"] for row in rows], self.pad_token_id)
        batch = {"input_ids": ids, "attention_mask": (ids != self.pad_token_id).long()}
        if all("labels" in row for row in rows):
            batch["labels"] = _filled([row["labels"] for row in rows], -100)
        return batch

    def save_pretrained(self, folder: str | Path, **unused: Any) -> tuple[str]:
        """Write ``alphabet.json`` into ``folder``; return its path, as a transformers tokenizer does."""
        del unused
        path = Path(folder) / FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        plain = {"letters": dict(self.letters), "phonemes": dict(self.phonemes)}
        path.write_text(json.dumps(plain, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        return (str(path),)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Alphabet:
        """Read what [save_pretrained][] wrote.

        Raises:
            TaskError: there is no such file, or it is not an alphabet.
        """
        path = Path(folder) / FILE
        try:
            plain = from_json(path.read_text(encoding="utf-8"))
            return cls(letters=plain["letters"], phonemes=plain["phonemes"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise TaskError(f"cannot read an alphabet from {str(path)!r}: {error}.") from error


def _filled(rows: Sequence[Sequence[int]], filler: int) -> torch.Tensor:
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[filler] * (longest - len(row))] for row in rows])
