"""Tokenizers of many languages: the code goes where the model expects it, and the decoder starts there."""

from __future__ import annotations

import pytest
import torch
from transformers import MBart50Tokenizer, MBartConfig, MBartForConditionalGeneration, MBartTokenizer

from tasks.tiny_text import tokenizer, write_jsonl
from unipetl.errors import TaskError
from unipetl.tasks import Seq2Seq, Wmt16EnRo
from unipetl.tasks.languages import speak

VOCABULARY = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
VOCABULARY += [(piece, -float(number)) for number, piece in enumerate(["▁", "▁da", "▁nu", "a", "b", "d", "u"], start=1)]
PAIRS = [{"en": "a b", "ro": "da nu"}, {"en": "b", "ro": "nu"}]


def tiny_mbart(folder=None, kind=MBartTokenizer):
    spelling = kind(vocab=VOCABULARY, src_lang="en_XX", tgt_lang="ro_RO")
    each = {"layers": 1, "ffn_dim": 8, "attention_heads": 2}
    sizes = {f"{stack}_{what}": size for stack in ("encoder", "decoder") for what, size in each.items()}
    sizes["max_position_embeddings"] = 160
    torch.manual_seed(0)
    model = MBartForConditionalGeneration(MBartConfig(vocab_size=len(spelling), d_model=8, **sizes))
    if folder is not None:
        model.save_pretrained(folder)
        spelling.save_pretrained(folder)
    return model, spelling


def test_mbart_writes_from_the_targets_code(tmp_path):
    tiny_mbart(tmp_path / "model")
    files = {name: write_jsonl(tmp_path / f"{name}.jsonl", PAIRS) for name in ("train", "validation")}
    prepared = Wmt16EnRo(files).prepare(model=str(tmp_path / "model"))
    spelling = prepared.tokenizer
    romanian, english = (spelling.convert_tokens_to_ids(code) for code in ("ro_RO", "en_XX"))
    assert prepared.train["input_ids"][0][-2:] == [spelling.eos_token_id, english]
    assert prepared.train["labels"][0][-2:] == [spelling.eos_token_id, romanian]
    assert prepared.model.generation_config.decoder_start_token_id == romanian
    batch = prepared.collator([prepared.train[0]])
    assert batch["decoder_input_ids"][0].tolist() == [romanian, *prepared.train["labels"][0][:-1]]
    assert prepared.row("b")["input_ids"][-1] == english


def test_where_the_code_comes_first_it_is_what_is_written_first():
    model, spelling = tiny_mbart(kind=MBart50Tokenizer)
    speak(model, spelling, "en_XX", "ro_RO", "mine")
    romanian = spelling.convert_tokens_to_ids("ro_RO")
    assert spelling(text_target="da")["input_ids"][0] == romanian
    assert model.generation_config.forced_bos_token_id == romanian


def test_a_tokenizer_of_one_language_is_left_alone():
    model, _ = tiny_mbart()
    before = model.generation_config.to_dict()
    speak(model, tokenizer(), None, None, "mine")
    assert model.generation_config.to_dict() == before


def test_languages_must_be_named_in_the_tokenizers_codes(tmp_path):
    tiny_mbart(tmp_path / "model")
    given = {"train": write_jsonl(tmp_path / "t.jsonl", PAIRS), "validation": write_jsonl(tmp_path / "v.jsonl", PAIRS)}
    columns = {"source": "en", "target": "ro", "metric": "exact_match"}
    with pytest.raises(TaskError, match="this model writes many languages; name two"):
        Seq2Seq({**given, **columns}).prepare(model=str(tmp_path / "model"))
    codes = {"source_language": "en_XX", "target_language": "ron_Latn"}
    with pytest.raises(TaskError, match=r"the tokenizer has no language 'ron_Latn'.*mBART: en_XX, ro_RO"):
        Seq2Seq({**given, **columns, **codes}).prepare(model=str(tmp_path / "model"))
