"""Finished runs on tiny models, without the training: what they trained is drawn at random."""

from __future__ import annotations

import asyncio
import functools
import inspect
import zlib
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM

import unipetl
from tasks.tiny_text import SAVE, words, write_jsonl
from unipetl.experiment import Recipe
from unipetl.experiment.directory import RunDirectory, RunResult, write_json
from unipetl.experiment.running import prepare
from unipetl.serving import Engine, Limits, Service, Source, create_app
from unipetl.tasks import get_task
from unipetl.testing.models import randomize

PAIRS = [{"source": words(number, number + 1), "target": words(number)} for number in range(12)]
TWO = ("good", "bad")
THREE = ("red", "green", "blue")


def labelled(labels):
    return [{"text": words(number, number + 1), "label": labels[number % len(labels)]} for number in range(12)]


def randomise(attachment):
    """Give an attachment values that change the function clearly, drawn from its name."""
    generator = torch.Generator().manual_seed(zlib.crc32(attachment.name.encode()))
    with torch.no_grad():
        for tensor in attachment.tensors().values():
            tensor.add_(0.5 * torch.randn(tensor.shape, generator=generator))


def make_run(folder, task, model, method, *, rows=None, seed=0, options=None):
    """Write the directory of a finished run, and return it."""
    folder = Path(folder)
    folder.mkdir(parents=True)
    options = dict(options or {})
    if rows is not None:
        file = folder.parent / f"{task}-{len(rows)}-{zlib.crc32(repr(rows).encode())}.jsonl"
        options |= dict.fromkeys(("train", "validation"), write_jsonl(file, rows))
    recipe = Recipe(task=task, model=str(model), method=method, options=options, training={"use_cpu": True})
    files = RunDirectory(folder)
    files.claim(recipe, seed)
    if not recipe.zero_shot:
        prepared = prepare(recipe, seed, get_task(task).configure(options))
        randomise(unipetl.attach(prepared.model, recipe.parsed(), name=folder.name))
        unipetl.save(prepared.model, files.adapter)
    numbers = dict.fromkeys(("seed", "parameters", "paper_parameters", "base_parameters", "steps"), 1)
    numbers |= dict.fromkeys(("score", "share", "train_seconds", "evaluate_seconds", "peak_memory_bytes"), 1)
    result = RunResult(
        path=folder, recipe="", task=task, method=method, metric="m", metrics={}, greater_is_better=True, **numbers
    )
    write_json(files.metrics, result.to_dict())
    return folder


def varied(folder, kind, seed=0):
    """Draw a model's parameters so wide that different inputs give clearly different answers."""
    model = kind.from_pretrained(folder)
    randomize(model, seed=seed)
    model.save_pretrained(folder)
    return folder


def make_classifiers(folder):
    """Runs of one BERT: several methods, two label sets. Return their directories by name."""
    base = varied(SAVE["bert"](folder / "base"), AutoModel)
    kinds = {
        "lora": ("lora(rank=2)", TWO),
        "mam": ("mam(length=2, rank=2, mlp=none)", TWO),
        "adapter": ("adapter(rank=3)", TWO),
        "bitfit": ("bitfit", TWO),
        "prompt": ("prompt_tuning(length=2)", TWO),
        "colour": ("lora(rank=2)", THREE),
        "colour 2": ("bitfit", THREE),
    }
    return {
        name: make_run(folder / name, "csv-classification", base, method, rows=labelled(labels))
        for name, (method, labels) in kinds.items()
    }


def make_writers(folder, kind):
    """Runs of one BART or GPT-2 that write."""
    base = varied(SAVE[kind](folder / "base"), AutoModelForSeq2SeqLM if kind == "bart" else AutoModelForCausalLM)
    options = {"generation": {"num_beams": 2, "max_length": 9}, "max_source_length": 30, "max_target_length": 9}
    methods = {
        "lora": "lora(rank=2)",
        "prefix": "prefix_tuning(length=2, mlp=none)",
        "parallel": "scaled_parallel_adapter(rank=3)",
    }
    return {
        name: make_run(folder / name, "seq2seq", base, method, rows=PAIRS, options=options)
        for name, method in methods.items()
    }


def engine_of(paths, **settings):
    """Return an engine with runs, and what it serves."""
    engine = Engine(**settings)
    served = [engine.load(Source(name, path)) for name, path in paths.items()]
    engine.load_base()
    return engine, served


@asynccontextmanager
async def client_of(engine, served, *, limits=None, allow_load=None, errors=False):
    """A client of a running service in this process, with `service` and `app` as attributes."""
    service = Service(engine, served, limits or Limits(), allow_load=allow_load)
    app = create_app(service)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app, raise_app_exceptions=not errors)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            client.service, client.app = service, app
            yield client


def serving(test):
    """Let an asynchronous test be called by pytest."""

    def called(**fixtures):
        asyncio.run(test(**fixtures))

    functools.update_wrapper(called, test)
    called.__signature__ = inspect.signature(test)
    return called
