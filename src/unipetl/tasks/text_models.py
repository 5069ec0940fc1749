"""Pretrained text models with their tokenizers: which fits a task, how long a text it takes, what it can spell."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)

from unipetl.errors import TaskError
from unipetl.tasks.loading import loading

#: Files of tokenizers. Where a folder has none, transformers may make one up that knows no words.
TOKENIZERS = ("tokenizer*", "vocab*", "*.model", "*.spm", "*.tiktoken", "*bpe*")
#: Above this share of unknown tokens, a note says so.
UNKNOWN = 0.05


def load_classifier(name: str, labels: Sequence[str], seed: int, task: str) -> tuple[PreTrainedModel, Any]:
    """Return the model in a folder or on the hub, with a classifier on top, and its tokenizer.

    Args:
        name: any model that transformers can classify with: encoder, encoder-decoder or decoder.
        labels: their names, in the order of their numbers.
        seed: what a fresh classifier is drawn from.
        task: its name, for messages.

    Raises:
        TaskError: it cannot be loaded, or transformers has no classifier for it.
    """
    numbered = {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    try:
        with loading(seed):
            tokenizer = load_tokenizer(name)
            model = AutoModelForSequenceClassification.from_pretrained(name, num_labels=len(labels), **numbered)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise TaskError(_refusal(task, "a classifier", name, error)) from error
    model.config.pad_token_id = tokenizer.pad_token_id
    return model.eval(), tokenizer


def load_writer(name: str, seed: int, task: str, *, decoder_only: bool = False) -> tuple[PreTrainedModel, Any]:
    """Return the model in a folder or on the hub that writes texts, and its tokenizer.

    Args:
        name: an encoder-decoder, or a decoder.
        seed: for weights that are not in the file; there should be none.
        task: its name, for messages.
        decoder_only: refuse encoder-decoders as well.

    Raises:
        TaskError: it cannot be loaded, or cannot write.
    """
    try:
        with loading(seed):
            config = AutoConfig.from_pretrained(name)
            kind = _writer(config)
            if kind is None or (decoder_only and kind is not AutoModelForCausalLM):
                wanted = "a decoder such as GPT-2" if decoder_only else "an encoder-decoder such as BART or a decoder"
                raise TaskError(f"task {task!r} needs {wanted}, and {name!r} is {config.model_type!r}.")
            tokenizer = load_tokenizer(name)
            model = kind.from_pretrained(name)
    except TaskError:
        raise
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise TaskError(_refusal(task, "a model that writes", name, error)) from error
    model.config.pad_token_id = model.generation_config.pad_token_id = tokenizer.pad_token_id
    if kind is AutoModelForCausalLM and tokenizer.eos_token_id is None:
        raise TaskError(
            f"task {task!r}: the tokenizer of {name!r} has no end-of-text token, so no text would ever end."
        )
    return model.eval(), tokenizer


def load_tokenizer(name: str) -> Any:
    """Return the tokenizer in a folder or on the hub, with a token to pad with.

    Raises:
        ValueError: there is none with the model.
    """
    folder = Path(name)
    if folder.is_dir() and not any(file for pattern in TOKENIZERS for file in folder.glob(pattern)):
        raise ValueError("there is no tokenizer with it.")
    tokenizer = AutoTokenizer.from_pretrained(name)
    if len(tokenizer) <= len(tokenizer.all_special_ids):  # what transformers makes of files that say nothing
        raise ValueError("there is no tokenizer with it.")
    if tokenizer.pad_token is None:  # models that only ever wrote text have none
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def capacity(model: nn.Module, tokenizer: Any) -> int | None:
    """Return how many tokens the model can read at once; None if nothing bounds it."""
    config: Any = model.config
    bounds = [getattr(config, name, None) for name in ("max_position_embeddings", "n_positions")]
    for name, module in model.named_modules():
        # RoBERTa and its kin count positions from behind the padding's.
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            assert isinstance(module, nn.Embedding)
            assert module.padding_idx is not None
            bounds.append(module.num_embeddings - module.padding_idx - 1)
    if not getattr(config, "relative_attention_num_buckets", None):  # T5's tokenizer names a length, its model none
        bounds.append(tokenizer.model_max_length)
    known = [int(bound) for bound in bounds if bound and 0 < bound < 10**9]
    return min(known, default=None)


def check_vocabulary(model: PreTrainedModel, tokenizer: Any, rows: Iterable[Sequence[int]], task: str) -> list[str]:
    """See that the model has an embedding for every id, and return a note if the tokenizer knows few of the words.

    Args:
        model: with an input embedding.
        tokenizer: that made the ids.
        rows: ids of texts; negative ones count for nothing.
        task: its name, for messages.

    Raises:
        TaskError: an id has no embedding.
    """
    embedding = model.get_input_embeddings()
    size = int(getattr(embedding, "num_embeddings", 0) or model.config.vocab_size)
    highest = total = unknown = 0
    for row in rows:
        highest = max(highest, max(row, default=0))
        total += len(row)
        unknown += row.count(tokenizer.unk_token_id) if isinstance(row, list) else 0
    if highest >= size:
        raise TaskError(
            f"task {task!r}: the tokenizer gives the id {highest} ({tokenizer.convert_ids_to_tokens(highest)!r}), and "
            f"the model has embeddings for ids below {size}. They do not belong together: use the model's own "
            "tokenizer."
        )
    if tokenizer.unk_token_id is not None and unknown > UNKNOWN * total:
        share = f"{100 * unknown / total:.0f} %"
        return [f"{unknown} of {total} tokens ({share}) are unknown to the tokenizer: is this model of this language?"]
    return []


def cut_note(count: int, total: int, what: str, length: int) -> list[str]:
    """Return a note that texts were cut, if any were."""
    return [f"{count} of {total} {what} are longer than {length} tokens and were cut."] if count else []


def by_length(inputs: Sequence[Sequence[int]]) -> list[int]:
    """Return the numbers of the inputs, shortest first; of equal ones the earlier first."""
    return sorted(range(len(inputs)), key=lambda number: len(inputs[number]))


def flat(*columns: Iterable[Sequence[int]]) -> Iterable[Sequence[int]]:
    """Return the rows of several columns of ids, one column after another."""
    return chain(*columns)


def _writer(config: Any) -> Any:
    if config.model_type in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES:
        return AutoModelForSeq2SeqLM
    encodes = config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False)
    return AutoModelForCausalLM if config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not encodes else None


def _refusal(task: str, what: str, name: str, error: Exception) -> str:
    where = f"folder {name!r}" if Path(name).exists() else f"{name!r}, which is no folder here"
    said = (str(error).splitlines() or [type(error).__name__])[0]
    return (
        f"task {task!r}: cannot load {what} from {where}: {said} Give a folder with a model and its tokenizer, or a "
        "name on the model hub (which needs a network, or the model in its cache)."
    )
