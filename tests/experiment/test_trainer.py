"""Checkpoints hold what is trained and nothing else, and a resumed run ends where an uninterrupted one does."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open
from transformers import (
    Seq2SeqTrainingArguments,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    default_data_collator,
)

import unipetl
from experiment.tiny import classification_rows, copying_rows, tiny_bart, tiny_bert
from unipetl.errors import MismatchError, RunError
from unipetl.experiment import PetlSeq2SeqTrainer, PetlTrainer
from unipetl.experiment.trainer import CHECKPOINT_FILES, last_checkpoint

METHODS = {
    "lora": "lora(rank=2, dropout=0.1)",
    "prefix through an MLP": "prefix_tuning(length=2, mlp=8)",
    "bitfit": "bitfit",
    "mam": "mam(length=2, rank=2, mlp=8)",
    "learned scale": "scaled_parallel_adapter(rank=2, scale=learned)",
    "full": "full",
    "head only": "head_only",
}
STEPS = 6


class StopAt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == self.step


def arguments(folder, kind=TrainingArguments, **more):
    defaults = {
        "max_steps": STEPS,
        "per_device_train_batch_size": 4,
        "learning_rate": 0.02,
        "save_steps": 2,
        "logging_steps": 1,
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
    }
    return kind(output_dir=str(folder), **{**defaults, **more})


def classifier(method, folder, trainer=PetlTrainer, callbacks=(), model=None, **more):
    model = tiny_bert() if model is None else model
    unipetl.attach(model, method)
    return trainer(
        model=model,
        args=arguments(folder, **more),
        train_dataset=classification_rows(24),
        eval_dataset=classification_rows(8, seed=1),
        data_collator=default_data_collator,
        callbacks=list(callbacks),
    )


def generator(method, folder, callbacks=(), **more):
    model = tiny_bart()
    unipetl.attach(model, method)
    return PetlSeq2SeqTrainer(
        model=model,
        args=arguments(folder, Seq2SeqTrainingArguments, **more),
        train_dataset=copying_rows(24),
        eval_dataset=copying_rows(8, seed=1),
        data_collator=default_data_collator,
        callbacks=list(callbacks),
    )


def state(model):
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def same(first, second):
    assert first.keys() == second.keys()
    return [name for name in first if not torch.equal(first[name], second[name])]


CASES = [(classifier, name) for name in METHODS] + [
    (generator, name) for name in ("mam", "prefix through an MLP", "full")
]


@pytest.mark.parametrize(("build", "method"), CASES, ids=[f"{build.__name__}, {name}" for build, name in CASES])
def test_a_resumed_run_ends_bit_for_bit_like_an_uninterrupted_one(tmp_path, build, method):
    method = METHODS[method]
    whole = build(method, tmp_path / "whole", save_strategy="no")
    before = state(whole.model)
    whole.train()
    assert same(before, state(whole.model)), "nothing was trained"

    build(method, tmp_path / "half", callbacks=[StopAt(4)]).train()
    resumed = build(method, tmp_path / "half")
    resumed.train(resume_from_checkpoint=str(tmp_path / "half" / "checkpoint-4"))
    assert resumed.state.global_step == STEPS
    assert same(state(whole.model), state(resumed.model)) == []


@pytest.mark.parametrize("method", [METHODS[name] for name in ("mam", "bitfit", "full")])
def test_a_checkpoint_holds_no_weight_of_the_base(tmp_path, method):
    trainer = classifier(method, tmp_path)
    trainer.train()
    checkpoint = tmp_path / "checkpoint-6"
    assert sorted(path.name for path in checkpoint.iterdir()) == sorted(
        name.replace("*", "") for name in CHECKPOINT_FILES
    )
    with safe_open(checkpoint / "unipetl.safetensors", "pt") as file:
        names = set(file.keys())
    assert names == set(unipetl.attachments(trainer.model)[0].tensors())
    trained = {f"model/{name}" for name, _ in unipetl.attachments(trainer.model)[0].plan.trained}
    assert {name for name in names if name.startswith("model/")} == trained


def test_a_checkpoint_loads_like_any_saved_attachment(tmp_path):
    trainer = classifier("lora(rank=2)", tmp_path)
    trainer.train()
    fresh = tiny_bert()
    unipetl.load(fresh, tmp_path / "checkpoint-6")
    assert same(state(trainer.model), state(fresh)) == []


@pytest.mark.parametrize("method", ["prefix_tuning(length=2, mlp=8)", "bitfit"])
def test_the_best_model_comes_back_at_the_end(tmp_path, method):
    kept = {}

    class Keep(TrainerCallback):
        def on_save(self, args, trainer_state, control, model=None, **kwargs):
            kept[trainer_state.global_step] = state(model)

    def worse_every_time(prediction):
        worse_every_time.calls += 1
        return {"score": 1.0 / worse_every_time.calls}

    worse_every_time.calls = 0
    trainer = classifier(
        method,
        tmp_path,
        callbacks=[Keep()],
        eval_strategy="steps",
        eval_steps=2,
        load_best_model_at_end=True,
        metric_for_best_model="score",
        greater_is_better=True,
    )
    trainer.compute_metrics = worse_every_time
    trainer.train()
    assert trainer.state.best_model_checkpoint.endswith("checkpoint-2")
    assert same(kept[2], state(trainer.model)) == []
    assert same(kept[6], state(trainer.model)), "the last model is not the best one here"


def test_resume_true_takes_the_last_checkpoint(tmp_path):
    classifier("lora(rank=2)", tmp_path, callbacks=[StopAt(2)]).train()
    resumed = classifier("lora(rank=2)", tmp_path)
    resumed.train(resume_from_checkpoint=True)
    assert [line["step"] for line in resumed.state.log_history if "loss" in line] == [1, 2, 3, 4, 5, 6]


def test_columns_the_model_does_not_take_are_dropped(tmp_path):
    trainer = classifier("prefix_tuning(length=2) + lora(rank=2)", tmp_path, save_strategy="no", max_steps=1)
    for row in trainer.train_dataset.rows:
        row["text"] = "a film"
    trainer.train()
    assert trainer.label_names == ["labels"]
    assert "eval_loss" in trainer.evaluate()


def test_transformers_own_trainer_trains_saves_and_resumes_an_attached_model(tmp_path):
    whole = classifier("mam(length=2, rank=2, mlp=8)", tmp_path / "whole", trainer=Trainer, save_strategy="no")
    whole.train()
    classifier("mam(length=2, rank=2, mlp=8)", tmp_path / "half", trainer=Trainer, callbacks=[StopAt(4)]).train()
    resumed = classifier("mam(length=2, rank=2, mlp=8)", tmp_path / "half", trainer=Trainer)
    resumed.train(resume_from_checkpoint=True)
    assert same(state(whole.model), state(resumed.model)) == []


def test_a_model_without_attachment_is_refused(tmp_path):
    with pytest.raises(RunError, match=r"BertForSequenceClassification has no attachment.*unipetl\.attach"):
        PetlTrainer(model=tiny_bert(), args=arguments(tmp_path))


def test_several_attachments_need_a_name(tmp_path):
    model = tiny_bert()
    unipetl.attach(model, "lora(rank=2)", name="first", train_head=False)
    unipetl.attach(model, "lora(rank=3)", name="second", train_head=False)
    with pytest.raises(RunError, match=r"'first', 'second'; which one"):
        PetlTrainer(model=model, args=arguments(tmp_path))
    with pytest.raises(RunError, match="none called 'third'"):
        PetlTrainer(model=model, args=arguments(tmp_path), attachment="third")
    PetlTrainer(model=model, args=arguments(tmp_path), attachment="second").save_model(str(tmp_path / "saved"))
    assert json.loads((tmp_path / "saved" / "unipetl.json").read_text())["name"] == "second"


def test_a_checkpoint_of_another_method_is_refused(tmp_path):
    classifier("lora(rank=2)", tmp_path, max_steps=2).train()
    other = classifier("lora(rank=3)", tmp_path)
    with pytest.raises(MismatchError, match="another method"):
        other.train(resume_from_checkpoint=True)


def test_a_half_written_checkpoint_is_named_and_passed_over(tmp_path):
    trainer = classifier("lora(rank=2)", tmp_path, max_steps=4)
    trainer.train()
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-4"
    (tmp_path / "checkpoint-4" / "trainer_state.json").unlink()
    with pytest.raises(RunError, match=r"it has no trainer_state\.json"):
        classifier("lora(rank=2)", tmp_path).train(resume_from_checkpoint=True)
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-2"
    weights = tmp_path / "checkpoint-2" / "unipetl.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\x01\x02\x03\x04")
    assert last_checkpoint(tmp_path) is None
