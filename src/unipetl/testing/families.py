"""Every supported model family at toy size, as data.

The sizes are chosen to break wrong assumptions: unequal depths and head counts of encoder and decoder, grouped
queries, heads whose size is not width / heads, a sliding window shorter than the text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from unipetl.errors import unknown

VOCABULARY = 50
LABELS = 3


@dataclass(frozen=True)
class Family:
    """One model family at toy size.

    Attributes:
        name: such as ``bart``.
        config: name of the config class in transformers; ``settings`` are its arguments.
        heads: name of a head -> name of the model class; the first is the family's usual one.
        kind: ``encoder``, ``decoder``, or ``both``.
    """

    name: str
    config: str
    settings: Mapping[str, Any]
    heads: Mapping[str, str]
    kind: Literal["encoder", "decoder", "both"]

    @property
    def head(self) -> str:
        """The family's usual head."""
        return next(iter(self.heads))

    def arguments(self, head: str) -> dict[str, Any]:
        """Return the config's arguments for one head."""
        if head == "question_answering":  # a start and an end
            return {**self.settings, "num_labels": 2}
        if head == "causal_lm" and self.kind == "both":  # BartForCausalLM's cache is as deep as its absent encoder
            return {**self.settings, "encoder_layers": self.settings["decoder_layers"]}
        return dict(self.settings)

    def __str__(self) -> str:
        """Return the name."""
        return self.name


_ENDINGS = {
    "sequence_classification": "ForSequenceClassification",
    "token_classification": "ForTokenClassification",
    "question_answering": "ForQuestionAnswering",
    "causal_lm": "ForCausalLM",
    "seq2seq_lm": "ForConditionalGeneration",
    "audio_classification": "ForAudioClassification",
    "base": "Model",
}


def _heads(prefix: str, *names: str, **others: str) -> dict[str, str]:
    return {name: others.get(name, prefix + _ENDINGS[name]) for name in names}


_WORDS = {"vocab_size": VOCABULARY, "max_position_embeddings": 40}
_BERT = {
    **_WORDS,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "num_labels": LABELS,
}
_LLAMA = {**_BERT, "num_key_value_heads": 2, "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
_SEQ2SEQ = {
    "vocab_size": VOCABULARY,
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 20,
    "bos_token_id": 0,
    "pad_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": None,
    "num_labels": LABELS,
}
_BART = {**_SEQ2SEQ, "max_position_embeddings": 40}
_T5 = {
    "vocab_size": VOCABULARY, "d_model": 16, "d_kv": 6, "d_ff": 24, "num_layers": 3, "num_decoder_layers": 2,
    "num_heads": 4, "relative_attention_num_buckets": 8, "relative_attention_max_distance": 12,
    "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0, "num_labels": LABELS,
}  # fmt: skip
_GPT2 = {
    "vocab_size": VOCABULARY, "n_positions": 40, "n_embd": 16, "n_layer": 2, "n_head": 4, "n_inner": 24,
    "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "num_labels": LABELS,
}  # fmt: skip
_WHISPER = {**_SEQ2SEQ, "num_mel_bins": 8, "max_source_positions": 10, "max_target_positions": 40}
_TASKS = ("sequence_classification", "token_classification", "question_answering", "base")
_SEQ = ("seq2seq_lm", "sequence_classification", "question_answering", "base")
_CAUSAL = ("causal_lm", "sequence_classification", "token_classification", "question_answering", "base")

FAMILIES: tuple[Family, ...] = (
    Family("bert", "BertConfig", _BERT, _heads("Bert", *_TASKS), "encoder"),
    Family("roberta", "RobertaConfig", {**_BERT, "pad_token_id": 1}, _heads("Roberta", *_TASKS), "encoder"),
    Family(
        "distilbert",
        "DistilBertConfig",
        {**_WORDS, "dim": 16, "n_layers": 2, "n_heads": 4, "hidden_dim": 24, "num_labels": LABELS},
        _heads("DistilBert", *_TASKS),
        "encoder",
    ),
    Family("bart", "BartConfig", _BART, _heads("Bart", *_SEQ, "causal_lm"), "both"),
    Family("mbart", "MBartConfig", _BART, _heads("MBart", *_SEQ), "both"),
    Family("marian", "MarianConfig", _BART, {"seq2seq_lm": "MarianMTModel", "base": "MarianModel"}, "both"),
    Family("t5", "T5Config", _T5, _heads("T5", *_SEQ, "token_classification"), "both"),
    Family("t5_gated", "T5Config", {**_T5, "feed_forward_proj": "gated-gelu"}, _heads("T5", *_SEQ), "both"),
    Family("gpt2", "GPT2Config", _GPT2, _heads("GPT2", *_CAUSAL, causal_lm="GPT2LMHeadModel"), "decoder"),
    Family("llama", "LlamaConfig", _LLAMA, _heads("Llama", *_CAUSAL), "decoder"),
    Family("mistral", "MistralConfig", {**_LLAMA, "sliding_window": 4}, _heads("Mistral", *_CAUSAL), "decoder"),
    Family("qwen2", "Qwen2Config", _LLAMA, _heads("Qwen2", *_CAUSAL), "decoder"),
    Family("qwen3", "Qwen3Config", {**_LLAMA, "head_dim": 8}, _heads("Qwen3", *_CAUSAL), "decoder"),
    Family(
        "whisper",
        "WhisperConfig",
        _WHISPER,
        _heads("Whisper", "seq2seq_lm", "audio_classification", "base"),
        "both",
    ),
)


def family(name: str) -> Family:
    """Return the family called ``name``.

    Raises:
        KeyError: there is none; the message has the near match.
    """
    for one in FAMILIES:
        if one.name == name:
            return one
    raise KeyError(unknown("family", name, [one.name for one in FAMILIES]))
