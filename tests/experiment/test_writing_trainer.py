"""Models without encoder in the Seq2SeqTrainer, and label smoothing that the decoder's inputs survive."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, Seq2SeqTrainingArguments

import unipetl
from experiment.tiny import Rows, tiny_bart
from unipetl.experiment import PetlSeq2SeqTrainer
from unipetl.experiment.writing_trainer import WritingTrainer
from unipetl.tasks.alphabet import Alphabet
from unipetl.tasks.prompted import PromptCollator

VOCABULARY = 24


def tiny_gpt2():
    torch.manual_seed(0)
    sizes = {"vocab_size": VOCABULARY, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}
    model = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=1, eos_token_id=2, pad_token_id=0))
    model.generation_config.pad_token_id = 0
    model.generation_config.eos_token_id = None  # random models end at any time, or never
    return model.eval()


def rows(count=7):
    draw = torch.Generator().manual_seed(1)

    def some(length):
        return torch.randint(3, VOCABULARY, (length,), generator=draw).tolist()

    return Rows([{"input_ids": some(1 + number % 5), "labels": [*some(1 + number % 3), 2]} for number in range(count)])


def arguments(folder, **more):
    settings = {"report_to": "none", "use_cpu": True, "disable_tqdm": True, "per_device_eval_batch_size": 4, **more}
    return Seq2SeqTrainingArguments(output_dir=str(folder), predict_with_generate=True, **settings)


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("method", [None, "mam(length=2, rank=2, mlp=8)", "prompt_tuning(length=2)"])
def test_what_is_written_is_what_each_prompt_alone_gives(tmp_path, method, beams):
    model, data = tiny_gpt2(), rows()
    if method:
        unipetl.attach(model, method)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    kind = PetlSeq2SeqTrainer if method else WritingTrainer
    trainer = kind(model=model, args=arguments(tmp_path), data_collator=PromptCollator(0))
    found = trainer.predict(data, max_length=5, num_beams=beams)
    for row, written, labels in zip(data.rows, found.predictions, found.label_ids, strict=True):
        prompt = torch.tensor([row["input_ids"]])
        alone = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=5, num_beams=beams)
        assert written[:5].tolist() == alone[0, prompt.shape[1] :].tolist()
        assert labels[labels != -100].tolist() == row["labels"]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_that_of_the_targets(tmp_path, smoothing):
    model, data = tiny_gpt2(), rows(4)
    made = WritingTrainer(
        model=model, args=arguments(tmp_path, label_smoothing_factor=smoothing), data_collator=PromptCollator(0)
    )
    found = made.predict(data, max_new_tokens=2).metrics["test_loss"]
    total, count = 0.0, 0
    for row in data.rows:
        line = torch.tensor([row["input_ids"] + row["labels"]])
        with torch.no_grad():
            scores = model(line).logits.log_softmax(-1)[0]
        for place in range(len(row["input_ids"]), line.shape[1]):
            predicted = scores[place - 1]
            total -= float((1 - smoothing) * predicted[line[0, place]] + smoothing * predicted.mean())
            count += 1
    assert found == pytest.approx(total / count, rel=1e-5)


def smoothed_by_hand(model, batch, epsilon):
    with torch.no_grad():
        scores = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=batch["labels"])
    chances, learnt = scores.logits.log_softmax(-1), batch["labels"] != -100
    right = chances.gather(-1, batch["labels"].clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return float(-((1 - epsilon) * right + epsilon * chances.mean(-1))[learnt].mean())


def test_label_smoothing_leaves_the_decoder_its_inputs(tmp_path):
    """The collator gives labels alone, and BART without them would read its input in the decoder."""
    model = tiny_bart()
    unipetl.attach(model, "lora(rank=2)")
    model.eval()
    pad = Alphabet({"a": 3}, {"b": 4}).pad
    batch = pad([{"input_ids": [1, 5, 6, 2], "labels": [1, 7, 2]}, {"input_ids": [1, 8, 2], "labels": [1, 9, 10, 2]}])
    trainer = PetlSeq2SeqTrainer(model=model, args=arguments(tmp_path, label_smoothing_factor=0.1), data_collator=pad)
    expected = smoothed_by_hand(model, batch, 0.1)
    assert float(trainer.compute_loss(model, dict(batch)).detach()) == pytest.approx(expected, rel=1e-5)
    loss, _, _ = trainer.prediction_step(model, dict(batch), prediction_loss_only=True)
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    loss, _, _ = trainer.prediction_step(model, dict(batch), prediction_loss_only=False, max_length=5)
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_training_lowers_the_loss_of_the_targets(tmp_path):
    model, data = tiny_gpt2(), rows()
    unipetl.attach(model, "lora(rank=4)")
    settings = {"max_steps": 12, "learning_rate": 0.05, "save_strategy": "no", "label_smoothing_factor": 0.1}
    trainer = PetlSeq2SeqTrainer(
        model=model,
        args=arguments(tmp_path, **settings),
        train_dataset=data,
        data_collator=PromptCollator(0),
        max_tokens_per_batch=20,
    )
    before = trainer.predict(data, max_new_tokens=2).metrics["test_loss"]
    trainer.train()
    assert trainer.predict(data, max_new_tokens=2).metrics["test_loss"] < before
    assert np.isfinite(before)
