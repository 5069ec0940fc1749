"""Runs that were never made: their files, written by hand, so that a report's tests train nothing."""

from __future__ import annotations

import json

from unipetl.experiment.comparing import failure_file, run_directory
from unipetl.experiment.directory import RunDirectory, write_json, write_lines
from unipetl.experiment.grid import ComparePlan
from unipetl.experiment.recipe import Recipe

BASE = 1_000_000
ENVIRONMENT = {"python": "3.12.1", "platform": "Linux", "threads": 1, "seed": 0, "packages": {"torch": "2.13.0"}}
ROWS = [
    {
        "place": "encoder.*.ffn",
        "layers": [0, 1],
        "functional form": "ReLU(x W_down) W_up",
        "insertion": "parallel",
        "representation": "ffn",
        "composition": "h ← h + Δh",
        "places": 2,
        "parameters": 4096,
        "paper parameters": 4096,
    }
]


def write_run(path, recipe: Recipe, seed: int, *, score, parameters=5000, metric="accuracy", better=True, more=()):
    """Write the files of a finished run."""
    files = RunDirectory(path)
    files.claim(recipe, seed)
    metrics = {metric: score, "loss": 0.5, **dict(more)}
    write_json(files.environment, {**ENVIRONMENT, "seed": seed, "notes": [], "metrics": {}})
    write_json(
        files.plan, {"rows": ROWS, "trained": {"classifier.weight": 64, "a.bias": 8}, "head": ["classifier.weight"]}
    )
    rows = [{"step": n, "seconds": n, "loss": 1 / (n + seed + 1)} for n in range(1, 6)]
    rows += [{"step": n, "seconds": n, f"eval_{metric}": score * n / 5} for n in (2, 5)]
    write_lines(files.log, rows)
    result = {
        "recipe": recipe.hash(), "task": recipe.task, "method": recipe.method_text(), "seed": seed, "metric": metric,
        "score": score, "greater_is_better": better, "metrics": metrics, "parameters": parameters,
        "paper_parameters": parameters // 2, "share": parameters / BASE, "base_parameters": BASE, "steps": 5,
        "train_seconds": 2.0, "evaluate_seconds": 1.0, "peak_memory_bytes": 3 * 2**20,
    }  # fmt: skip
    write_json(files.metrics, result)
    return path


def write_comparison(folder, methods=None, *, seeds=(0, 1), tasks=("sst2",), scores=None, plan=None, sizes=None):
    """Write a comparison whose runs are all finished; a score of None is a failure, a missing one is not made."""
    methods = methods or {"LoRA": "lora(rank=2)", "adapter": "adapter(rank=2)", "full": "full", "zero-shot": "none"}
    whole = plan or ComparePlan(name="made by hand", methods=methods, seeds=list(seeds), tasks=list(tasks))
    whole.save(folder / "plan.yaml")
    usual = {"full": BASE, "zero-shot": 0}
    for cell in whole.cells():
        for seed in whole.seeds:
            path = run_directory(folder, cell, seed)
            given = (scores or {}).get((cell.label, seed), 80 + len(cell.label) + seed)
            if given is None:
                path.parent.mkdir(parents=True, exist_ok=True)
                reason = {"error": "PlanError", "message": "it makes no <sense>", "trace": "", "stderr": ""}
                failure_file(path).write_text(json.dumps(reason))
            elif given != "missing":
                size = (sizes or {}).get(cell.label, usual.get(cell.label, 5000))
                write_run(path, cell.recipe, seed, score=given, parameters=size)
    return folder
