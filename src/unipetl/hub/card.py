"""The card of an attachment on the hub: what it is, what it costs, how good it is, and how to load it.

Everything in it comes from the attachment's description and, where there is one, the run's result.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean, stdev
from typing import Any
from urllib.parse import quote

import yaml

from unipetl.markdown import code, escape, table
from unipetl.saved import Saved

CARD = "README.md"
#: Ends of the names of a classifier's last matrix, whose rows are the labels.
_CLASSIFIERS = (
    "classifier.weight",
    "classifier.out_proj.weight",
    "classification_head.out_proj.weight",
    "score.weight",
)


@dataclass(frozen=True)
class Score:
    """What one run of a recipe scored."""

    seed: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Facts:
    """What the card says beside the attachment itself.

    Attributes:
        base: the base's name on the hub, if it has one.
        notation: the method in one line, if it was written so.
        task: the task's name; ``options`` its options and ``own_model`` whether the base is the task's own.
        metric: the task's own metric.
        greater_is_better: how to read it.
        paper_parameters: the count by the paper's rule.
        scores: the scores of every seed of the recipe; the first is the one that is published.
        steps: how many optimisation steps it took.
    """

    base: str | None = None
    notation: str | None = None
    task: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    own_model: bool = False
    metric: str | None = None
    greater_is_better: bool = True
    paper_parameters: int | None = None
    scores: Sequence[Score] = ()
    steps: int | None = None


def card(saved: Saved, repository: str, facts: Facts | None = None) -> str:
    """Return the card, Markdown behind a block of metadata."""
    facts = facts or Facts()
    parts = [
        _metadata(saved, facts),
        f"# {escape(repository.rpartition('/')[2])}",
        _introduction(saved, facts),
        "## Method",
        _method(saved, facts),
        "## Size",
        _size(saved, facts),
        *(["## Results", _results(facts)] if facts.scores else []),
        "## Use",
        _use(saved, repository, facts),
    ]
    return "\n\n".join(parts) + "\n"


def _metadata(saved: Saved, facts: Facts) -> str:
    forms = sorted({type(one.form).tag.replace("_", "-") for one in saved.method().modifications})
    data: dict[str, Any] = {"library_name": "unipetl", "tags": ["unipetl", "parameter-efficient", *forms]}
    if facts.base is not None:
        data |= {"base_model": facts.base, "base_model_relation": "adapter"}
    return f"---\n{yaml.safe_dump(data, sort_keys=False, allow_unicode=True).strip()}\n---"


def _introduction(saved: Saved, facts: Facts) -> str:
    base = saved.description["base"]
    where = f"a {escape(str(base.get('model_class')))}"
    if facts.base:
        where = f"[{escape(facts.base)}](https://huggingface.co/{quote(facts.base)})"
    task = f", trained on the task {code(facts.task)}" if facts.task else ""
    return f"An attachment of unipetl for {where}{task}."


def _method(saved: Saved, facts: Facts) -> str:
    method = saved.method()
    lines = [f"{code(facts.notation)}, in the four axes of He et al. 2022:\n"] if facts.notation else []
    columns = ("functional form", "insertion", "representation", "composition")
    rows = [[row[one] for one in columns] for row in method.rows()]
    if rows:
        lines.append(table(columns, rows))
    if method.train:
        lines.append(f"\nTrained in place: {escape(', '.join(method.train))}.")
    if saved.description["train_head"]:
        lines.append("\nThe task head is part of it.")
    return "\n".join(lines)


def _size(saved: Saved, facts: Facts) -> str:
    trained = sum(one.numel() for one in saved.tensors.values())
    whole = saved.description["base"].get("parameters")
    rows = [["trained, and in the file", f"{trained:,}"]]
    if isinstance(whole, int) and whole:
        rows += [["of the base's", f"{whole:,}"], ["share", f"{100 * trained / whole:.3f} %"]]
    if facts.paper_parameters is not None:
        rows.append(["by the paper's rule", f"{facts.paper_parameters:,}"])
    return table(("parameters", ""), rows)


def _results(facts: Facts) -> str:
    names = list(dict.fromkeys(name for one in facts.scores for name in one.metrics))
    rows = [
        [str(one.seed), *(f"{one.metrics[name]:.4f}" if name in one.metrics else "-" for name in names)]
        for one in facts.scores
    ]
    if len(facts.scores) > 1:
        columns = [[one.metrics[name] for one in facts.scores if name in one.metrics] for name in names]
        rows.append(["mean ± std", *(f"{mean(c):.4f} ± {stdev(c):.4f}" if len(c) > 1 else "-" for c in columns)])
    direction = "higher" if facts.greater_is_better else "lower"
    text = f"{code(str(facts.task))}; its own metric is {escape(str(facts.metric))}, {direction} is better."
    if facts.steps is not None:
        text += f" {facts.steps:,} optimisation steps."
    if len(facts.scores) > 1:
        text += f" The files here are those of seed {facts.scores[0].seed}."
    return f"{text}\n\n{table(('seed', *names), rows)}"


def _use(saved: Saved, repository: str, facts: Facts) -> str:
    kind = str(saved.description["base"].get("model_class"))
    lines = ["import unipetl"]
    if facts.own_model and facts.task is not None:
        options = f".configure({_literal(dict(facts.options))})" if facts.options else ""
        seed = saved.description["seed"]
        lines += [
            "from unipetl.tasks import get_task", "",
            f"model = get_task({_literal(facts.task)}){options}.prepare(seed={seed}).model",
        ]  # fmt: skip
    else:
        labels = _labels(saved)
        more = f", num_labels={labels}" if labels is not None else ""
        name = _literal(facts.base) if facts.base else '"..."'
        note = "" if facts.base else "  # the base it was trained on"
        lines += [f"from transformers import {kind}", "", f"model = {kind}.from_pretrained({name}{more}){note}"]
    lines += [f"unipetl.load(model, {_literal(repository)})", "model.eval()"]
    code = "\n".join(lines)
    return f"```python\n{code}\n```"


def _literal(value: Any) -> str:
    """Return plain data as Python writes it, with double quotes."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_literal(key)}: {_literal(one)}" for key, one in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_literal, value)) + "]"
    return repr(value)


def _labels(saved: Saved) -> int | None:
    """Return how many labels the trained classifier has, for a class that must be told."""
    for name, value in saved.tensors.items():
        if name.startswith("model/") and name.endswith(_CLASSIFIERS) and value.dim() == 2:
            return int(value.shape[0])
    return None
