"""What a batch costs in which every row has an attachment of its own, and what switching, attaching and reloading cost.

    python benchmarks/routing.py                      # a RoBERTa-base shape, 32 rows
    python benchmarks/routing.py --layers 4 --rows 8  # smaller

Weights are random: speed does not depend on them. The routes take turns in one process on a fixed number of threads,
and what counts is the ratio within a round: its median, and its quartiles. Seconds are the process's own on a CPU,
where other work would disturb the clock's, and the clock's on an accelerator.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import RobertaConfig, RobertaForSequenceClassification

import unipetl
from unipetl import saved

METHODS = {
    "LoRA, rank 8, query and value": "lora(rank=8)",
    "LoRA, rank 8, every projection": "lora(rank=8, at=all)",
    "parallel bottleneck, rank 64": "scaled_parallel_adapter(rank=64, scale=4)",
    "sequential bottleneck, rank 64": "houlsby(rank=64)",
    "prefix, 30 keys": "prefix_tuning(length=30, mlp=None)",
    "MAM, 30 keys, rank 64": "mam(length=30, rank=64, mlp=None)",
    "(IA)3": "ia3()",
    "BitFit": "bitfit",
}


def clock() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def seconds(work: Callable[[], Any]) -> float:
    started = clock()
    work()
    return clock() - started


def roberta(layers: int) -> Any:
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=50265, max_position_embeddings=514, type_vocab_size=1, pad_token_id=1, num_hidden_layers=layers
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return RobertaForSequenceClassification(config).eval().to(device)


def quartiles(values: list[float]) -> str:
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:6.3f}  [{low:.3f}, {high:.3f}]"


def routing(options: argparse.Namespace) -> None:
    print(
        f"{options.rows} rows of {options.tokens} tokens, {options.layers} layers, ratio to one attachment for all rows"
    )
    for title, method in METHODS.items():
        if options.only and options.only not in title:
            continue
        model = roberta(options.layers)
        ids = torch.randint(5, 50000, (options.rows, options.tokens), device=model.device)
        names = [f"n{number}" for number in range(options.rows)]
        for name in names:
            unipetl.activate(model, None) if unipetl.attachments(model) else None
            unipetl.attach(model, method, name=name, train_head=False)
        routes = {"bare": None, "one": names[0]}

        @torch.inference_mode()
        def alone(name: str | None, model: Any = model, ids: torch.Tensor = ids) -> None:
            unipetl.activate(model, name)
            model(input_ids=ids)

        @torch.inference_mode()
        def together(model: Any = model, ids: torch.Tensor = ids, names: list[str] = names) -> None:
            with unipetl.routed(model, names):  # stacked anew each time, as for a server's next batch
                model(input_ids=ids)

        found: dict[str, list[float]] = {"bare": [], "one": [], "each": []}
        for number in range(options.rounds + 1):
            times = {route: seconds(lambda name=name: alone(name)) for route, name in routes.items()}
            times["each"] = seconds(together)
            if number:
                for route, value in times.items():
                    found[route].append(value)
        ratios = [each / one for each, one in zip(found["each"], found["one"], strict=True)]
        bare = [one / bare for one, bare in zip(found["one"], found["bare"], strict=True)]
        print(f"  {title:32} {quartiles(ratios)}    one to the bare model {quartiles(bare)}")


def switching(options: argparse.Namespace) -> None:
    model = roberta(options.layers)
    attaching, names = [], [f"n{number}" for number in range(31)]
    for name in names:
        if unipetl.attachments(model):
            unipetl.activate(model, None)
        attaching.append(seconds(lambda name=name: unipetl.attach(model, "lora(rank=8)", name=name)))
    first = statistics.median(attaching[1:4])  # the very first one also fills caches
    last = statistics.median(attaching[-3:])
    print(f"attaching LoRA, ms: the 2nd to 4th {first * 1e3:.1f}, the 29th to 31st {last * 1e3:.1f}")
    activating = [seconds(lambda name=name: unipetl.activate(model, name)) for name in names * 3]
    print(f"activating one of 31, ms: {quartiles([value * 1e3 for value in activating])}")


def reloading(options: argparse.Namespace) -> None:
    model = roberta(options.layers)
    plan = unipetl.attach(model, "mam(length=16, rank=16, mlp=None)", train_head=False).plan
    with tempfile.TemporaryDirectory() as folder:
        unipetl.save(model, folder)
        parts = {
            "all of it": lambda: unipetl.reload(model, folder),
            "reading and checking the folder": lambda: saved.read(folder, quick=True),
            "the same by SHA-256": lambda: saved.read(folder),
            "loading it as a new attachment": lambda: unipetl.detach(
                unipetl.load(model, folder, name="new").model, "new"
            ),
        }
        print(
            f"reloading MAM, {plan.share:.2%} of the model ({plan.parameters:,} values), between batches of 4 x 64: "
            "ms by the clock, and the process's"
        )
        batch = torch.randint(3, model.config.vocab_size, (4, 64))
        times: dict[str, list[tuple[float, float]]] = {part: [] for part in parts}
        for _ in range(30):
            for part, work in parts.items():
                with torch.no_grad():
                    model(input_ids=batch)  # a running model fills the processor's caches with its own values
                started, used = time.perf_counter(), time.process_time()
                work()
                times[part].append(((time.perf_counter() - started) * 1e3, (time.process_time() - used) * 1e3))
        for part, found in times.items():
            walls, own = (list(one) for one in zip(*found[3:], strict=True))
            print(f"  {part:34} {quartiles(walls)}    {quartiles(own)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default="", help="part of a method's title")
    parser.add_argument("--part", choices=["routing", "switching", "reloading"])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for part in (routing, switching, reloading):
        if options.part in (None, part.__name__):
            part(options)


if __name__ == "__main__":
    main()
