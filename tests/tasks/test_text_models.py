"""How long a text a model takes, on tiny models of families that count positions differently."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    RobertaConfig,
    RobertaForSequenceClassification,
    T5Config,
    T5ForConditionalGeneration,
)

from tasks.tiny_text import SIZE, tokenizer, words, write_jsonl
from unipetl.errors import TaskError
from unipetl.tasks import Seq2Seq, Sst2, XSum
from unipetl.tasks.text_models import capacity, load_writer


def tiny_roberta():
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    return RobertaForSequenceClassification(
        RobertaConfig(vocab_size=SIZE, max_position_embeddings=34, pad_token_id=1, **sizes)
    )


def tiny_t5():
    torch.manual_seed(0)
    sizes = {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}
    ids = {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 2}
    return T5ForConditionalGeneration(T5Config(vocab_size=SIZE, **sizes, **ids))


def test_roberta_counts_positions_from_behind_the_paddings():
    spelling = tokenizer()
    assert capacity(tiny_roberta(), spelling) == 32
    spelling.model_max_length = 20
    assert capacity(tiny_roberta(), spelling) == 20, "the tokenizer knows a lower limit"


def test_relative_positions_have_no_end():
    spelling = tokenizer()
    spelling.model_max_length = 20
    assert capacity(tiny_t5(), spelling) is None


def test_absolute_positions_end_where_the_table_does():
    model = GPT2LMHeadModel(GPT2Config(vocab_size=8, n_embd=8, n_layer=1, n_head=2, n_positions=40))
    assert capacity(model, tokenizer()) == 40


def test_a_full_row_fits_roberta(tmp_path):
    spelling = tokenizer()
    spelling.save_pretrained(tmp_path / "model")
    tiny_roberta().save_pretrained(tmp_path / "model")
    rows = [{"sentence": words(*range(40)), "label": number % 2} for number in range(4)]
    given = {name: write_jsonl(tmp_path / f"{name}.jsonl", rows) for name in ("train", "validation")}
    prepared = Sst2(given).prepare(model=str(tmp_path / "model"))
    batch = prepared.collator([prepared.train[0]])
    assert batch["input_ids"].shape == (1, 32)
    with torch.no_grad():
        assert prepared.model(**batch).logits.isfinite().all()


def test_t5_reads_its_own_prefix(tmp_path):
    tokenizer().save_pretrained(tmp_path / "model")
    tiny_t5().save_pretrained(tmp_path / "model")
    rows = [{"document": words(1, 2), "summary": words(3)}] * 3
    given = {name: write_jsonl(tmp_path / f"{name}.jsonl", rows) for name in ("train", "validation")}
    own, none = (XSum({**given, **more}).prepare(model=str(tmp_path / "model")) for more in ({}, {"prefix": ""}))
    assert len(own.train[0]["input_ids"]) == len(none.train[0]["input_ids"]) + 2, "summarize :"
    mine = Seq2Seq({**given, "source": "document", "target": "summary", "metric": "exact_match"})
    assert len(mine.prepare(model=str(tmp_path / "model")).train[0]["input_ids"]) == len(none.train[0]["input_ids"])


def test_a_folder_without_a_tokenizer_or_a_model_is_named(tmp_path):
    tiny_t5().save_pretrained(tmp_path / "bare")
    with pytest.raises(TaskError, match=r"cannot load a model that writes from folder '.*bare'"):
        load_writer(str(tmp_path / "bare"), 0, "mine")
    with pytest.raises(TaskError, match="which is no folder here"):
        load_writer(str(tmp_path / "nowhere"), 0, "mine")


def test_a_tokenizer_without_an_end_is_refused(tmp_path):
    spelling = tokenizer(ends=False)
    spelling.eos_token = None
    spelling.save_pretrained(tmp_path)
    GPT2LMHeadModel(GPT2Config(vocab_size=SIZE, n_embd=8, n_layer=1, n_head=2)).save_pretrained(tmp_path)
    with pytest.raises(TaskError, match="has no end-of-text token"):
        load_writer(str(tmp_path), 0, "mine")
