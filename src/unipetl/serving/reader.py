"""How texts become rows for a model and answers become words: what a run's task knows, without its data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from unipetl.errors import ServingError
from unipetl.tasks import Prepared
from unipetl.tasks.text_models import capacity

Row = dict[str, list[int]]
Kind = Literal["classification", "generation", "embedding"]

#: Settings of a model's own generation config that are about files or calls, and not about what is written.
_NOT_WRITING = ("transformers_version", "_from_model_config", "return_dict_in_generate", "use_cache", "max_length")
_DEFAULT_LENGTH = 20  # transformers' own, where neither the model nor the task says one


@dataclass(frozen=True)
class Reader:
    """One way of reading and answering.

    Attributes:
        kind: what its model does; every kind can embed.
        encode: a text as a row of ids, each field of one length.
        decode: written ids as a text.
        labels: their names, by number; empty but for classification.
        generation: every setting of ``generate`` that is not transformers' default, with ``max_new_tokens``.
        capacity: positions of the model; None if nothing bounds them.
        one_line: whether what is written stands behind what is read, in the same positions.
    """

    kind: Kind
    encode: Callable[[str], Row]
    decode: Callable[[list[int]], str]
    labels: tuple[str, ...]
    generation: Mapping[str, Any]
    capacity: int | None
    one_line: bool

    def room(self, length: int) -> int | None:
        """Return how many tokens can be written after ``length`` are read; None if nothing bounds them."""
        if self.capacity is None:
            return None
        return self.capacity - (length if self.one_line else 1)


def reader_of(prepared: Prepared, source: str) -> Reader:
    """Return the reader of a task that was made ready.

    Raises:
        ServingError: its batches are more than rows filled up, so that rows of several runs cannot share one.
    """
    _check_collator(prepared, source)
    tokenizer, encode = prepared.tokenizer, prepared.encode  # and not `prepared`, which would keep the model in memory
    return _reader(
        prepared.model,
        tokenizer,
        encode if encode is not None else lambda text: {"input_ids": list(tokenizer.encode(text))},
        prepared.generation or {},
    )


def plain_reader(model: PreTrainedModel, tokenizer: Any) -> Reader:
    """Return the reader of a model that no task goes with: texts are cut to what it can read."""
    most = _capacity(model, tokenizer)
    length = most if most is None or not left_padded(model, _kind(model)) else max(most // 2, 1)  # room to write on

    def encode(text: str) -> Row:
        made = tokenizer(text, truncation=length is not None, max_length=length, return_attention_mask=False)
        return {"input_ids": list(made["input_ids"])}

    return _reader(model, tokenizer, encode, {})


def _reader(
    model: PreTrainedModel, tokenizer: Any, encode: Callable[[str], Row], generation: Mapping[str, Any]
) -> Reader:
    kind = _kind(model)
    return Reader(
        kind=kind,
        encode=encode,
        decode=lambda ids: str(tokenizer.decode(ids, skip_special_tokens=True)),
        labels=_labels(model, kind),
        generation=writing_settings(model, generation),
        capacity=_capacity(model, tokenizer),
        one_line=left_padded(model, kind),
    )


def writing_settings(model: PreTrainedModel, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return every setting of ``generate``: a model's own, changed by a task's.

    The length is that of new tokens, so that it does not depend on how far a batch is filled up. (An encoder-decoder's
    ``max_length`` counts the token that its decoder starts from.)
    """
    if not model.can_generate():
        return {}
    config: Any = model.generation_config
    found = {name: value for name, value in config.to_diff_dict().items() if name not in _NOT_WRITING} | dict(given)
    longest = found.pop("max_length", None) or config.max_length or _DEFAULT_LENGTH
    start = 1 if model.config.is_encoder_decoder else 0
    found["max_new_tokens"] = found.get("max_new_tokens") or max(longest - start, 1)
    found["num_return_sequences"] = 1
    return found


def padded(rows: list[Row], padding: int, *, left: bool) -> dict[str, Tensor]:
    """Return rows as one batch, each field (rows, longest), with an attention mask.

    Args:
        rows: with ``input_ids``; a field that only some have (``token_type_ids``) is 0 in the others.
        padding: the id that ``input_ids`` are filled up with; other fields are filled up with 0.
        left: fill up on the left, for a model that continues its input.
    """
    longest = max(len(row["input_ids"]) for row in rows)
    names = dict.fromkeys(name for row in rows for name in row if name != "attention_mask")

    def filled(name: str, row: Row, filler: int) -> list[int]:
        size = len(row["input_ids"])
        values = list(row.get(name, [1 if name == "attention_mask" else 0] * size))
        gap = [filler] * (longest - size)
        return gap + values if left else values + gap

    return {
        name: torch.tensor([filled(name, row, padding if name == "input_ids" else 0) for row in rows])
        for name in (*names, "attention_mask")
    }


def padding_of(model: PreTrainedModel) -> int:
    """Return the id that a model's inputs are filled up with."""
    found = getattr(model.config, "pad_token_id", None)
    return 0 if found is None else int(found)


def left_padded(model: PreTrainedModel, kind: Kind) -> bool:
    """Say whether inputs are filled up on the left: those of a decoder that writes on in their line."""
    return kind == "generation" and not model.config.is_encoder_decoder


def _kind(model: PreTrainedModel) -> Kind:
    name = type(model).__name__
    if name.endswith("ForSequenceClassification"):
        return "classification"
    return "generation" if model.can_generate() else "embedding"


def _capacity(model: PreTrainedModel, tokenizer: Any) -> int | None:
    return capacity(model, SimpleNamespace(model_max_length=getattr(tokenizer, "model_max_length", None)))


def _labels(model: PreTrainedModel, kind: Kind) -> tuple[str, ...]:
    if kind != "classification":
        return ()
    config: Any = model.config
    return tuple(str(config.id2label.get(number, number)) for number in range(config.num_labels))


def _check_collator(prepared: Prepared, source: str) -> None:
    some = [prepared.evaluation[place] for place in range(min(2, len(prepared.evaluation)))]
    columns = ("input_ids", "token_type_ids")
    rows = [{name: list(row[name]) for name in columns if name in row} for row in some]
    made = prepared.collator([dict(row) for row in rows])
    theirs = {name: value for name, value in made.items() if isinstance(value, Tensor)}
    wrong = [name for name in theirs if name not in (*columns, "attention_mask")]
    if "attention_mask" not in theirs:
        wrong.append("attention_mask")
    else:
        for place, row in enumerate(rows):
            here = theirs["attention_mask"][place].bool()
            wrong += [n for n, ids in row.items() if n not in theirs or theirs[n][place][here].tolist() != ids]
    if wrong:
        raise ServingError(
            f"{source}: its task makes batches that are more than rows filled up (field {wrong[0]!r}), so its rows "
            "cannot share batches with others. `unipetl predict` computes such a run."
        )
