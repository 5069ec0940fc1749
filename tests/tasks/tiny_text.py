"""Tiny random text models with a tokenizer of whole words, saved as transformers saves them."""

from __future__ import annotations

import json

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)

SPECIAL = ["<pad>", "<s>", "</s>", "<unk>"]
WORDS = [f"w{number}" for number in range(40)] + [",", ".", "English", "Romanian", ":", "TL", ";", "DR", "good", "bad"]
SIZE = len(SPECIAL) + len(WORDS)


def tokenizer(*, pairs=False, ends=True, pad=True):
    words = {word: number for number, word in enumerate([*SPECIAL, *WORDS])}
    made = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    if ends:
        second = " <s>:1 $B:1 </s>:1" if pairs else " $B </s>"
        made.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", pair=f"<s> $A </s>{second}", special_tokens=[("<s>", 1), ("</s>", 2)]
        )
    names = ["input_ids", "token_type_ids", "attention_mask"] if pairs else ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="<pad>" if pad else None,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        model_input_names=names,
    )


def save_bert(folder, **more):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = BertConfig(**{"vocab_size": SIZE, "max_position_embeddings": 64, **sizes, **more})
    BertModel(config).save_pretrained(folder)
    tokenizer(pairs=True).save_pretrained(folder)
    return str(folder)


def save_bart(folder, **more):
    torch.manual_seed(0)
    sizes = {
        "vocab_size": SIZE,
        "d_model": 16,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 16,
        "decoder_ffn_dim": 16,
        "max_position_embeddings": 64,
    }
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
    config = BartConfig(**{**sizes, **ids, "forced_eos_token_id": 2, **more})
    BartForConditionalGeneration(config).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return str(folder)


def save_gpt2(folder, **more):
    torch.manual_seed(0)
    sizes = {"vocab_size": SIZE, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 256}
    config = GPT2Config(**{**sizes, "bos_token_id": 1, "eos_token_id": 2, **more})
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer(ends=False, pad=False).save_pretrained(folder)
    return str(folder)


SAVE = {"bert": save_bert, "bart": save_bart, "gpt2": save_gpt2}


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def words(*numbers):
    return " ".join(f"w{number}" for number in numbers)
