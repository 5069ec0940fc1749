"""``transformers.pipeline`` on an attached model is the attached model, and without the attachment the bare one."""

from __future__ import annotations

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

import unipetl
from unipetl.testing import build
from unipetl.testing.compare import scatter

WORDS = ["[PAD]", "[MASK]", "[END]", "[UNK]", *(f"w{number}" for number in range(40))]
TEXT = "w3 w14 w15 w9 w2"


def tokenizer():
    made = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", mask_token="[MASK]", eos_token="[END]", unk_token="[UNK]",
        model_max_length=32,
    )  # fmt: skip


def masked_model():
    config = transformers.BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24,
        max_position_embeddings=40,
    )  # fmt: skip
    torch.manual_seed(0)
    return transformers.BertForMaskedLM(config).eval()


def classify(model, found):
    ids = tokenizer()(TEXT, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        chances = model(input_ids=ids).logits.softmax(-1)[0]
    assert found[0]["label"] == model.config.id2label[int(chances.argmax())]
    assert found[0]["score"] == pytest.approx(float(chances.max()), abs=1e-5)
    return found[0]["score"]


def continued(model, found):
    ids = tokenizer()(TEXT, return_tensors="pt")["input_ids"]
    wanted = model.generate(input_ids=ids, max_new_tokens=6, do_sample=False, pad_token_id=0)[0]
    written = tokenizer().decode(wanted[ids.shape[1] :], skip_special_tokens=True)
    assert found[0]["generated_text"].removeprefix(TEXT).strip() == written
    return found[0]["generated_text"]


def features(model, found):
    ids = tokenizer()(TEXT, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        wanted = model(input_ids=ids).last_hidden_state
    assert torch.allclose(torch.tensor(found), wanted, atol=1e-5)
    return found[0][0][0]


def filled(model, found):
    ids = tokenizer()(TEXT.replace("w14", "[MASK]"), return_tensors="pt")["input_ids"]
    with torch.no_grad():
        chances = model(input_ids=ids).logits[0, 1].softmax(-1)
    assert found[0]["token"] == int(chances.argmax())
    assert found[0]["score"] == pytest.approx(float(chances.max()), abs=1e-5)
    return found[0]["score"]


WRITING = {"max_new_tokens": 6, "do_sample": False}
CASES = {
    "text-classification": (lambda: build("roberta"), TEXT, classify, {}),
    "text-generation": (
        lambda: build("llama", eos_token_id=2),
        TEXT,
        continued,
        {"max_new_tokens": 6, "do_sample": False},
    ),
    "feature-extraction": (lambda: build("bert", "base"), TEXT, features, {}),
    "fill-mask": (masked_model, TEXT.replace("w14", "[MASK]"), filled, {}),
}


@pytest.mark.parametrize("method", ["mam(length=3, rank=4)", "lora(rank=2, at=all)"])
@pytest.mark.parametrize("task", CASES)
@pytest.mark.filterwarnings("ignore")  # what pipelines say of tiny models and of their own arguments
def test_a_pipeline_computes_with_the_attachment(task, method):
    make, text, check, settings = CASES[task]
    model = make()
    pipe = transformers.pipeline(task, model=model, tokenizer=tokenizer(), device="cpu")
    bare = check(model, pipe(text, **settings))
    scatter(unipetl.attach(model, method))
    assert pipe.model is model
    changed = check(model, pipe(text, **settings))
    assert changed != bare
    unipetl.activate(model, None)
    assert check(model, pipe(text, **settings)) == bare
