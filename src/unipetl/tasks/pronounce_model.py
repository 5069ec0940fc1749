"""The pronunciation task's pretrained BART, and the rows that new phonemes get in its embedding.

**New phonemes under frozen embeddings.** The output layer is tied to the embedding, and most methods freeze it. The
logits of a new phoneme n and an old one o then differ by (w_n - w_o)·h for ever, so the starting row of n decides what
a frozen model can learn. It starts as the row of its nearest American phoneme (``O``, ``æ``, ``ɑ``, ``ɹ``) plus a fixed
random direction of 0.6 times the mean length of a phoneme's row. Exact match on the 600 held-out words after one epoch
of the 8,000, by the length of that direction, 1 standard error being 2 (labels then lacked the start symbol, which
costs every row some points):

    ================================  ====  ====  ====  ====  ====  ======================
    what is trained (learning rate)   0.02  0.1   0.3   0.6   1.0   transformers' own rows
    ================================  ====  ====  ====  ====  ====  ======================
    the decoder's layers (1e-3)       35.2  46.2  50.7  50.8  51.2  18.3
    LoRA, rank 16, all (6e-3)         39.5  52.3  55.5  55.0  56.0  17.8
    parallel bottleneck, 64 (1e-2)    28.3  43.0  43.0  43.2  42.3  16.3
    everything (1e-3)                 53.3  53.3  53.3  53.7  55.7  37.5
    ================================  ====  ====  ====  ====  ====  ======================

From 0.3 to 1.0 the choice does not matter; nearer, frozen embeddings cannot tell the two phonemes apart. The direction
does not depend on the seed: it belongs to the base model, which all runs share. Dropout is off, since a short training
of so small a model does not overfit.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import BartConfig, BartForConditionalGeneration, GenerationConfig

from unipetl.errors import TaskError
from unipetl.tasks.alphabet import Alphabet
from unipetl.tasks.loading import loading

POSITIONS = 64  # that the model has, start and end included
NEAREST = {"Q": "O", "a": "æ", "ɒ": "ɑ", "ː": "ɹ"}  # British phoneme -> the American one it stands most often for
NOISE = 0.6  # see above


def british_alphabet(meta: Mapping[str, Any], rows: int) -> Alphabet:
    """Return the published model's alphabet, whose ids are places in two strings, with the British phonemes.

    The new ids start at ``rows``, the size of the published embedding.
    """
    letters = {letter: number for number, letter in enumerate(meta["grapheme_chars"]) if number > 3}
    phonemes = {sound: number for number, sound in enumerate(meta["phoneme_chars"]) if number > 3}
    return Alphabet(letters, phonemes | {sound: rows + i for i, sound in enumerate(NEAREST)})


def american_model(weights: Mapping[str, np.ndarray[Any, Any]]) -> BartForConditionalGeneration:
    """Return the published model from its arrays, named as transformers names them.

    Raises:
        TaskError: an array is missing, superfluous, or of a wrong shape.
    """
    rows, width = weights["model.shared.weight"].shape
    config = BartConfig(
        vocab_size=rows,
        d_model=width,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=1,
        decoder_attention_heads=1,
        encoder_ffn_dim=len(weights["model.encoder.layers.0.fc1.weight"]),
        decoder_ffn_dim=len(weights["model.decoder.layers.0.fc1.weight"]),
        max_position_embeddings=POSITIONS,
        dropout=0.0,
        pad_token_id=Alphabet.pad_token_id,
        bos_token_id=Alphabet.bos_token_id,
        eos_token_id=Alphabet.eos_token_id,
        decoder_start_token_id=Alphabet.bos_token_id,
        forced_eos_token_id=Alphabet.eos_token_id,
    )
    with loading(seed=0):
        model = BartForConditionalGeneration(config)
    tied = {"model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight"}
    try:
        result = model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()}, strict=False)
    except RuntimeError as error:
        raise TaskError(f"the pretrained pronunciation model cannot be read: {error}") from error
    if result.unexpected_keys or set(result.missing_keys) - tied:
        raise TaskError(f"the pretrained pronunciation model is not as expected: {result}.")
    model.tie_weights()
    model.generation_config = GenerationConfig.from_model_config(config)
    model.generation_config.max_length = POSITIONS
    return model.eval()


def load_model(name: str, rows: int) -> BartForConditionalGeneration:
    """Return the BART in a folder or on the hub, if it has this task's vocabulary of ``rows``, extended or not.

    Raises:
        TaskError: it cannot be loaded, or is another model.
    """
    fits = (rows, rows + len(NEAREST))
    try:
        with loading(seed=0):
            model = BartForConditionalGeneration.from_pretrained(name)
    except (OSError, ValueError, RuntimeError) as error:
        where = f"folder {name!r}" if Path(name).exists() else f"{name!r}, which is no folder here"
        raise TaskError(
            f"task 'pronounce': cannot load a BART from {where}: {str(error).splitlines()[0]} Leave `model` out for "
            "the task's own model, or give a folder that such a model was saved to."
        ) from error
    if model.config.vocab_size not in fits:
        raise TaskError(
            f"task 'pronounce': {name!r} has a vocabulary of {model.config.vocab_size}, and this task's letters and "
            f"phonemes need {fits[0]} or {fits[1]}. Leave `model` out for the task's own model."
        )
    return model


def add_british_phonemes(model: BartForConditionalGeneration, alphabet: Alphabet) -> None:
    """Add an embedding row per British phoneme, in place: its nearest American one's and a direction of its own."""
    old = len(_table(model))
    with loading(seed=0):
        model.resize_token_embeddings(old + len(NEAREST), mean_resizing=False)
    table = _table(model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        known = [number for number in alphabet.phonemes.values() if number < old]
        length = NOISE * table[known].norm(dim=1).mean()
        for british, american in NEAREST.items():
            direction = torch.randn(table.shape[1], generator=generator)
            near = table[alphabet.phonemes[american]]
            table[alphabet.phonemes[british]] = near + length * direction / direction.norm()


def _table(model: BartForConditionalGeneration) -> Tensor:
    """The embedding (vocabulary, width), which is the output layer too."""
    embedding = model.get_input_embeddings()
    assert isinstance(embedding, nn.Embedding)
    return embedding.weight
