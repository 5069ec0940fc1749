"""What mixed batches are worth: texts a second of a server, over loopback.

    python benchmarks/serving.py                     # a random BERT of six layers of 256, 16 LoRA attachments
    python benchmarks/serving.py --method "mam(length=4, rank=4, mlp=none)" --attachments 32

Three ways to compute the same requests, each of one text:

  one attachment      every request names the same one
  mixed               requests name 16 different ones, and batches are mixed
  switching           the same requests where a batch has one attachment only, as with switching between them

The ways take turns in one process; what is printed is texts a second, and the ratio of mixed batches to the others with
its range over the rounds. The number of requests and of clients is fixed.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import mean

import httpx
import torch
import uvicorn
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

import unipetl
from unipetl.serving import Engine, Limits, Service, Source, bind, create_app
from unipetl.serving.process import address

WORDS = 200


def make_base(folder: Path, width: int, layers: int) -> None:
    words = {word: number for number, word in enumerate(["<pad>", "<s>", "</s>", *(f"w{n}" for n in range(WORDS))])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "w0"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers}
    config = BertConfig(vocab_size=len(words), num_attention_heads=width // 32, max_position_embeddings=128, **sizes)
    BertForSequenceClassification(config).save_pretrained(folder)


def make_attachments(folder: Path, method: str, count: int) -> list[Source]:
    sources = []
    for number in range(count):
        model = BertForSequenceClassification.from_pretrained(folder / "base")
        attachment = unipetl.attach(model, method, seed=number)
        with torch.no_grad():
            for tensor in attachment.tensors().values():
                tensor.add_(0.02 * torch.randn(tensor.shape))
        sources.append(Source(f"a{number}", unipetl.save(model, folder / f"a{number}")))
    return sources


class Switching(Engine):
    """Computes a batch attachment by attachment, as a server that switches between them has to."""

    def compute(self, items):
        answers = {}
        for served in {item.work.served for item in items}:
            own = [item for item in items if item.work.served is served]
            answers |= dict(zip(map(id, own), super().compute(own), strict=True))
        return [answers[id(item)] for item in items]


@contextmanager
def listening(service: Service) -> Iterator[str]:
    with bind("127.0.0.1", 0) as taken:
        server = uvicorn.Server(uvicorn.Config(create_app(service), log_config=None, lifespan="on", ws="none"))
        thread = threading.Thread(target=server.run, args=([taken],))
        thread.start()
        while not server.started:
            time.sleep(0.05)
        try:
            yield address(taken)
        finally:
            server.should_exit = True
            thread.join()


async def ask(where: str, requests: list[dict[str, str]], clients: int) -> float:
    """Send every request, from so many clients at once; return texts a second."""
    left = iter(requests)
    async with httpx.AsyncClient(base_url=where, timeout=120) as client:

        async def one() -> None:
            for body in left:
                (await client.post("/v1/classify", json=body)).raise_for_status()

        started = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(clients)))
    return len(requests) / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="lora(rank=8)")
    parser.add_argument("--attachments", type=int, default=16)
    parser.add_argument("--requests", type=int, default=192, help="of each way and round")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=6)
    chosen = parser.parse_args()
    draw = torch.Generator().manual_seed(0)
    lengths = torch.randint(8, 40, (chosen.requests,), generator=draw).tolist()
    texts = [" ".join(f"w{n}" for n in torch.randint(WORDS, (size,), generator=draw).tolist()) for size in lengths]
    names = [f"a{number % chosen.attachments}" for number in range(chosen.requests)]
    mixed = [{"attachment": name, "inputs": text} for name, text in zip(names, texts, strict=True)]
    same = [{"attachment": "a0", "inputs": text} for text in texts]
    ways = {"one attachment": (Engine, same), "mixed": (Engine, mixed), "switching": (Switching, mixed)}
    found: dict[str, list[float]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        make_base(folder / "base", chosen.width, chosen.layers)
        sources = make_attachments(folder, chosen.method, chosen.attachments)
        for turn in range(chosen.rounds + 1):  # the first one warms up
            for way, (kind, requests) in ways.items():
                engine = kind(str(folder / "base"))
                service = Service(engine, [engine.load(source) for source in sources], Limits())
                with listening(service) as where:
                    asyncio.run(ask(where, requests[:32], chosen.clients))
                    speed = asyncio.run(ask(where, requests, chosen.clients))
                if turn:
                    found[way].append(speed)
    print(
        f"{chosen.method}: {chosen.attachments} attachments, {chosen.clients} clients, {chosen.requests} texts a round"
    )
    for way, speeds in found.items():
        ratios = [ours / theirs for ours, theirs in zip(found["mixed"], speeds, strict=True)]
        print(f"  {way:16} {mean(speeds):8.1f} texts/s", end="")
        print(f"   mixed is {mean(found['mixed']) / mean(speeds):.2f} x ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
