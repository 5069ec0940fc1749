"""An attached model is still a transformers model: pipelines take it, and its own files stay its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import (
    BartForConditionalGeneration,
    BertForSequenceClassification,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    pipeline,
)

import unipetl
from equivalence.checks import randomize
from equivalence.tiny import MAM, PREFIX, PROMPT, words
from unipetl.testing import build

VOCABULARY = {"[PAD]": 1, "[UNK]": 3, "[CLS]": 0, "[SEP]": 2, **{f"word{i}": i for i in range(4, 50)}}


def tokenizer(**settings: Any) -> PreTrainedTokenizerFast:
    words_only = Tokenizer(WordLevel(VOCABULARY, unk_token="[UNK]"))
    words_only.pre_tokenizer = Whitespace()
    words_only.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 0), ("[SEP]", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=words_only, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        model_max_length=30, **settings,
    )  # fmt: skip


@pytest.mark.parametrize("method", [MAM, PROMPT, "lora(rank=2)"])
def test_a_classification_pipeline_computes_with_the_attachment(method: str) -> None:
    one = build("bert", "sequence_classification")
    texts = ["word5 word6 word7", "word40 word41 word42 word43 word44"]
    classify = pipeline("text-classification", model=one, tokenizer=tokenizer(), device="cpu", top_k=None)
    bare = classify(texts, batch_size=2)
    attachment = unipetl.attach(one, method)
    randomize({name: t for name, t in attachment.tensors().items() if not name.startswith("model/")})
    with torch.no_grad():
        encoded = tokenizer()(texts, padding=True, return_tensors="pt", return_token_type_ids=False)
        want = one(**encoded).logits.softmax(-1)
    for batch_size in (1, 2):
        got = classify(texts, batch_size=batch_size)
        for row, scores in enumerate(got):
            by_label = {score["label"]: score["score"] for score in scores}
            for label in range(3):
                assert by_label[f"LABEL_{label}"] == pytest.approx(float(want[row, label]), abs=1e-5)
    attachment.detach()
    assert classify(texts, batch_size=2) == bare
    assert got != bare


def test_a_generation_pipeline_computes_with_the_attachment() -> None:
    one = build("llama")
    write = pipeline("text-generation", model=one, tokenizer=tokenizer(padding_side="left"), device="cpu")
    options = {"max_new_tokens": 4, "do_sample": False, "return_tensors": True, "eos_token_id": None}
    text = "word5 word6 word7 word30"
    bare = write(text, **options)[0]["generated_token_ids"]
    with torch.no_grad():
        randomize(unipetl.attach(one, PREFIX).tensors())
        ids = tokenizer()(text, return_tensors="pt", return_token_type_ids=False)
        want = one.generate(**ids, max_new_tokens=4, do_sample=False, eos_token_id=None)[0].tolist()
    got = write(text, **options)[0]["generated_token_ids"]
    assert list(got) == want
    assert list(got) != list(bare)


CLASSES = {
    "bert": ("sequence_classification", BertForSequenceClassification),
    "bart": ("seq2seq_lm", BartForConditionalGeneration),
    "llama": ("causal_lm", LlamaForCausalLM),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("method", ["lora(rank=2)", MAM, "mam(length=3, rank=2, mlp=4)"])
@pytest.mark.parametrize("family", CLASSES)
def test_a_model_saved_by_transformers_keeps_its_base(family: str, method: str, tmp_path: Path) -> None:
    head, model_class = CLASSES[family]
    one = build(family, head)
    before = {name: tensor.clone() for name, tensor in one.state_dict().items()}
    inputs = {"input_ids": words()}
    with torch.no_grad():
        bare = one(**inputs).logits
        randomize(unipetl.attach(one, method, train_head=False).tensors())
        changed = one(**inputs).logits
    assert set(before) < set(one.state_dict()), "the base's own names changed"
    one.save_pretrained(tmp_path)
    again = model_class.from_pretrained(tmp_path).eval()
    after = again.state_dict()
    assert set(after) == set(before)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert not unipetl.attachments(again)
    with torch.no_grad():
        assert torch.equal(again(**inputs).logits, bare)
    assert (changed - bare).abs().max() > 1e-3
