"""The dimensions of well-known models, so that a method can be counted on them without weights or a network.

Each row is what the model's published ``config.json`` says where it differs from its family's defaults. The number
beside it is the size that the row must give, checked by a test.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Standard:
    """One well-known model.

    Attributes:
        names: what it is called, the shortest name first.
        model_type: its family, as transformers calls it.
        model_class: the class its checkpoint was saved from.
        parameters: its size; for encoders, of the encoder alone, without a pooler and a head.
        dimensions: the fields of its config that are not the family's defaults.
    """

    names: tuple[str, ...]
    model_type: str
    model_class: str
    parameters: int
    dimensions: Mapping[str, Any]


_ROBERTA = {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
_LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}

STANDARD: tuple[Standard, ...] = (
    Standard(("roberta-base", "FacebookAI/roberta-base"), "roberta", "RobertaForMaskedLM", 124_055_040, _ROBERTA),
    Standard(
        ("roberta-large", "FacebookAI/roberta-large"), "roberta", "RobertaForMaskedLM", 354_310_144, _ROBERTA | _LARGE
    ),
    Standard(("bert-base-uncased", "google-bert/bert-base-uncased"), "bert", "BertForMaskedLM", 108_891_648, {}),
    Standard(
        ("distilbert-base-uncased", "distilbert/distilbert-base-uncased"),
        "distilbert",
        "DistilBertForMaskedLM",
        66_362_880,
        {},
    ),
    Standard(
        ("bart-base", "facebook/bart-base"),
        "bart",
        "BartForConditionalGeneration",
        139_420_416,
        {
            "d_model": 768,
            "encoder_layers": 6,
            "decoder_layers": 6,
            "encoder_attention_heads": 12,
            "decoder_attention_heads": 12,
            "encoder_ffn_dim": 3072,
            "decoder_ffn_dim": 3072,
        },
    ),
    Standard(("bart-large", "facebook/bart-large"), "bart", "BartForConditionalGeneration", 406_291_456, {}),
    Standard(
        ("mbart-large-cc25", "facebook/mbart-large-cc25"),
        "mbart",
        "MBartForConditionalGeneration",
        610_851_840,
        {"vocab_size": 250027, "scale_embedding": True},
    ),
    Standard(("t5-small", "google-t5/t5-small"), "t5", "T5ForConditionalGeneration", 60_506_624, {}),
    Standard(
        ("t5-base", "google-t5/t5-base"),
        "t5",
        "T5ForConditionalGeneration",
        222_903_552,
        {"d_model": 768, "d_ff": 3072, "num_layers": 12, "num_heads": 12},
    ),
    Standard(("gpt2", "openai-community/gpt2"), "gpt2", "GPT2LMHeadModel", 124_439_808, {}),
    Standard(
        ("whisper-tiny", "openai/whisper-tiny"),
        "whisper",
        "WhisperForConditionalGeneration",
        37_760_640,
        {
            "vocab_size": 51865,
            "d_model": 384,
            "encoder_layers": 4,
            "decoder_layers": 4,
            "encoder_attention_heads": 6,
            "decoder_attention_heads": 6,
            "encoder_ffn_dim": 1536,
            "decoder_ffn_dim": 1536,
        },
    ),
    Standard(
        ("tinyllama-1.1b", "TinyLlama/TinyLlama-1.1B-Chat-v1.0"),
        "llama",
        "LlamaForCausalLM",
        1_100_048_384,
        {
            "vocab_size": 32000,
            "hidden_size": 2048,
            "intermediate_size": 5632,
            "num_hidden_layers": 22,
            "num_attention_heads": 32,
            "num_key_value_heads": 4,
            "tie_word_embeddings": False,
        },
    ),
    Standard(
        ("llama-3.2-1b", "meta-llama/Llama-3.2-1B"),
        "llama",
        "LlamaForCausalLM",
        1_235_814_400,
        {
            "vocab_size": 128256,
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 16,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "tie_word_embeddings": True,
        },
    ),
)


def find_standard(name: str) -> Standard | None:
    """Return the well-known model called ``name``, whatever its case, or None."""
    return next((one for one in STANDARD if name.lower() in {known.lower() for known in one.names}), None)
