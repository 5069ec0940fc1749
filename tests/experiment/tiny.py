"""Tiny random models and data for experiments, made on the spot."""

from __future__ import annotations

import torch
from transformers import BartConfig, BartForConditionalGeneration, BertConfig, BertForSequenceClassification


def tiny_bert(seed: int = 0) -> BertForSequenceClassification:
    torch.manual_seed(seed)
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=32,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=32,
        )
    )


def tiny_bart(seed: int = 0) -> BartForConditionalGeneration:
    torch.manual_seed(seed)
    return BartForConditionalGeneration(
        BartConfig(
            vocab_size=24,
            d_model=16,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=32,
            decoder_ffn_dim=32,
            max_position_embeddings=32,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=1,
            forced_eos_token_id=2,
        )
    )


class Rows(torch.utils.data.Dataset):
    """Rows of plain lists, with a column the model does not take."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index]


def classification_rows(count: int, seed: int = 0) -> Rows:
    draw = torch.Generator().manual_seed(seed)
    tokens = torch.randint(3, 32, (count, 8), generator=draw).tolist()
    return Rows([{"input_ids": t, "attention_mask": [1] * 8, "labels": int(sum(t) % 2)} for t in tokens])


def copying_rows(count: int, seed: int = 0) -> Rows:
    draw = torch.Generator().manual_seed(seed)
    tokens = torch.randint(3, 24, (count, 6), generator=draw).tolist()
    return Rows([{"input_ids": t, "attention_mask": [1] * 6, "labels": [*t[::-1], 2]} for t in tokens])
