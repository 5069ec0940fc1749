"""Training on batches of a budget of tokens: resumed bit for bit, and shared by processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from transformers import DataCollatorForSeq2Seq, Seq2SeqTrainingArguments, TrainingArguments

import unipetl
from experiment.test_trainer import StopAt, same, state
from experiment.tiny import Rows, tiny_bart, tiny_bert
from experiment.toy_task import collate
from unipetl.errors import RunError
from unipetl.experiment import PetlSeq2SeqTrainer, PetlTrainer
from unipetl.experiment.batches import TokenBudget

STEPS = 10
SOURCES = str(Path(unipetl.__file__).parents[1])
TESTS = str(Path(__file__).parents[1])


def uneven_rows(count=24):
    rows = [[3 + (5 * number + place) % 20 for place in range(2 + number % 7)] for number in range(count)]
    return Rows([{"input_ids": ids, "labels": sum(ids) % 2} for ids in rows])


def trainer(folder, kind="bert", callbacks=(), budget=24, steps=STEPS, **more):
    settings = {
        "max_steps": steps,
        "learning_rate": 0.02,
        "save_steps": 1,
        "logging_steps": 1,
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        **more,
    }
    model, rows, collator = tiny_bert(), uneven_rows(), collate
    if kind == "bart":
        model, collator = tiny_bart(), None
        rows = Rows([{**row, "labels": [*row["input_ids"][::-1], 2]} for row in rows.rows])
    unipetl.attach(model, "lora(rank=2, dropout=0.1)")
    if collator is None:
        collator = DataCollatorForSeq2Seq(_Padder(), model=model, padding=True)
    made = PetlTrainer if kind == "bert" else PetlSeq2SeqTrainer
    arguments = TrainingArguments if kind == "bert" else Seq2SeqTrainingArguments
    return made(
        model=model,
        args=arguments(output_dir=str(folder), **settings),
        train_dataset=rows,
        data_collator=collator,
        callbacks=list(callbacks),
        max_tokens_per_batch=budget,
    )


class _Padder:
    """As much of a tokenizer as transformers' collator needs."""

    padding_side = "right"

    def pad(self, rows, return_tensors=None, **settings):
        longest = max(len(row["input_ids"]) for row in rows)
        ids = torch.tensor([[*row["input_ids"], *[0] * (longest - len(row["input_ids"]))] for row in rows])
        return {"input_ids": ids, "attention_mask": (ids != 0).long()}


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("kind", ["bert", "bart"])
def test_a_run_resumed_within_its_second_epoch_ends_bit_for_bit_the_same(tmp_path, kind, accumulate):
    more = {"gradient_accumulation_steps": accumulate}
    whole = trainer(tmp_path / "whole", kind, save_strategy="no", **more)
    per_epoch = -(-len(whole.get_train_dataloader()) // accumulate)
    stop = per_epoch + 2
    assert per_epoch > 2, "there is something to be in the middle of"
    whole.args.max_steps = stop + 2
    whole.train()
    trainer(tmp_path / "half", kind, callbacks=[StopAt(stop)], steps=stop + 2, **more).train()
    resumed = trainer(tmp_path / "half", kind, steps=stop + 2, **more)
    resumed.train(resume_from_checkpoint=str(tmp_path / "half" / f"checkpoint-{stop}"))
    assert resumed.state.global_step == stop + 2
    assert same(state(whole.model), state(resumed.model)) == []


def test_planted_epoch_that_is_forgotten_shows(tmp_path, monkeypatch):
    whole = trainer(tmp_path / "whole", save_strategy="no")
    stop = len(whole.get_train_dataloader()) + 2
    whole.args.max_steps = stop + 2
    whole.train()
    trainer(tmp_path / "half", callbacks=[StopAt(stop)], steps=stop + 2).train()
    resumed = trainer(tmp_path / "half", steps=stop + 2)
    monkeypatch.setattr(TokenBudget, "set_epoch", lambda batches, epoch: None)
    resumed.train(resume_from_checkpoint=str(tmp_path / "half" / f"checkpoint-{stop}"))
    assert same(state(whole.model), state(resumed.model))


def test_every_batch_is_within_the_budget(tmp_path):
    loader = trainer(tmp_path).get_train_dataloader()
    sizes = [tuple(batch["input_ids"].shape) for batch in loader]
    assert all(rows * length <= 24 for rows, length in sizes)
    assert len({rows for rows, _ in sizes}) > 1
    assert sum(rows for rows, _ in sizes) == 24


def test_a_budget_that_an_example_exceeds_is_refused(tmp_path):
    with pytest.raises(RunError, match="the longest example alone has 8 tokens"):
        trainer(tmp_path, budget=7).train()


@pytest.mark.slow
def test_two_processes_share_every_epoch(tmp_path):
    """Two processes over gloo: together they see every example once an epoch, and train the same model."""
    script = tmp_path / "train.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import json, os, sys
            from experiment.test_token_training import trainer
            settings = {{"save_strategy": "no", "ddp_backend": "gloo", "num_train_epochs": 2, "steps": -1}}
            made = trainer({str(tmp_path / "out")!r}, **settings)
            loader, seen, forward = made.get_train_dataloader(), [], made.training_step
            def step(model, inputs, *more):
                seen.append(inputs["input_ids"].tolist())
                return forward(model, inputs, *more)
            made.training_step = step
            made.train()
            weights = [float(p.double().sum()) for p in made.model.parameters() if p.requires_grad]
            path = {str(tmp_path)!r} + f"/rank{{os.environ['RANK']}}.json"
            json.dump({{"seen": seen, "weights": weights, "steps": made.state.global_step}}, open(path, "w"))
            """
        )
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([SOURCES, TESTS]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2)]
    assert ranks[0]["weights"] == ranks[1]["weights"]
    assert len(ranks[0]["seen"]) == len(ranks[1]["seen"]) == ranks[0]["steps"]
    rows = sorted(tuple(i for i in row if i) for rank in ranks for batch in rank["seen"] for row in batch)
    assert rows == sorted(2 * [tuple(row["input_ids"]) for row in uneven_rows().rows])
