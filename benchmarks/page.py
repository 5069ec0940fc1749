"""Writes docs/benchmarks.md from a file of results."""

from __future__ import annotations

from benchmarks import sections
from benchmarks.libraries import TITLES as LIBRARIES
from benchmarks.results import Results

CLOCKS = {
    "cpu": "seconds are the process's own (all its threads)",
    "wall": "seconds are the clock's, with the device waited for",
}
READING = """\
This page is written by `python -m benchmarks page` from `docs/benchmarks.json`, which has every single time.
`benchmarks/NOTES.md` tells how it is measured and what was tried.

A figure is the median of ratios within a round, with the quartiles in brackets. What is compared takes turns within a
round, and the reference is timed again after every three others. Each library has an environment and a process of its
own with its own reference, and the processes take turns round by round. Weights are random, and all models of a process
share them. The reference's own row is its first time in a round over its last, which shows the noise. Empty cells: the
library has no such method, or the page's end tells why.

- **bare model**: the frozen model's forward pass, or its `generate`.
- **training floor**: forward, loss and backward of the frozen model with one trained vector added to the token
  embeddings: the gradient passes every layer, and nothing is done in a layer. A method needs no gradient
  of the first layer's input, so it can stay below, by a part of one layer; this shows in models of few layers.
- **full fine-tuning** and **head only** train what they say. Everywhere else heads stay frozen.
"""


def machine(results: Results) -> str:
    found = results.environment
    where = found.get("accelerator") or f"{found['processor']}, {found['threads']} thread(s)"
    lines = [f"- {where}; {CLOCKS[results.clock]}", f"- {found['date']}, commit {found['commit']}"]
    for library, about in results.libraries.items():
        versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
        lines.append(f"- {LIBRARIES[library]}: {versions}, Python {about['python']}")
    return "\n".join(lines)


def page(results: Results) -> str:
    """Return the page's text."""
    parts = [
        ("Targets", sections.targets(results)),
        ("Forward pass without gradients", sections.side_by_side(results, "eval")),
        ("Training step", sections.side_by_side(results, "train")),
        ("Generation", generation(sections.side_by_side(results, "generate", inverse=True))),
        ("Memory of a training step", memory(sections.memory(results))),
        ("Attaching", sections.milliseconds(results, "attach", "attach to the RoBERTa shape")),
        ("Importing", sections.milliseconds(results, "import", "beyond torch and transformers")),
        (
            "Saving and loading",
            "\n\n".join(filter(None, (sections.milliseconds(results, "storage", "files"), sections.sizes(results)))),
        ),
        ("Many attachments", sections.milliseconds(results, "switch", "16 attachments", per=", to a bare forward")),
        (
            "Another attachment in every row",
            sections.milliseconds(results, "route", "8 rows", per=", to a bare forward"),
        ),
        ("Growth with depth, rows and length", sections.growth(results)),
        ("torch.compile", sections.compiling(results)),
        ("What could not be measured", sections.problems(results)),
    ]
    written = [f"## {title}\n\n{text}" for title, text in parts if text]
    return "\n\n".join(["# Benchmarks", READING.strip(), machine(results), *written]) + "\n"


def generation(text: str) -> str:
    return text and f"Tokens a second over the bare model's: more is better.\n\n{text}"


def memory(text: str) -> str:
    said = (
        "Saved: distinct storages that autograd keeps for the backward pass, parameters not counted, and in "
        "brackets its ratio to full fine-tuning's. Held: all that is alive between the passes. Peak: the most that is "
        "alive in a first step with AdamW, beyond the bare model. These are counted, not timed."
    )
    return text and f"{said}\n\n{text}"
