"""The table of docs/folding.md, computed: what folds into what, and why what stays stays."""

from __future__ import annotations

from typing import Any

from unipetl import Method
from unipetl.attaching import attach, detach
from unipetl.errors import PlanError
from unipetl.folding import examine
from unipetl.representation import NAMES
from unipetl.testing import build
from unipetl.testing.compare import scatter

#: A model of each kind of block: post-norm, pre-norm, and pre-norm with a gated FFN.
KINDS = {"post-norm": "bert", "pre-norm": "gpt2", "gated": "llama"}
SMALL = {"rank": 2}
CHANGES: dict[str, dict[str, Any]] = {
    "`rescale`": {"form": "rescale", "insertion": "sequential", "composition": "multiply"},
    "`low_rank`, sequential": {"form": {"low_rank": SMALL}, "insertion": "sequential"},
    "`low_rank`, parallel": {"form": {"low_rank": SMALL}, "insertion": "parallel"},
    "`bottleneck`, sequential": {"form": {"bottleneck": SMALL}, "insertion": "sequential"},
    "`bottleneck`, parallel": {"form": {"bottleneck": SMALL | {"activation": "tanh"}}, "insertion": "parallel"},
    "`bottleneck`, parallel, `activation=model`": {
        "form": {"bottleneck": SMALL | {"activation": "model"}},
        "insertion": "parallel",
    },
}
INSIDE: dict[str, dict[str, Any]] = {
    "prefix (`head_attention`, softmax, `gate`)": {
        "representation": "attention.heads", "form": {"head_attention": {"length": 2}}, "composition": "gate",
    },
    "ungated prefix (`head_attention`, softmax, `add`)": {
        "representation": "attention.heads", "form": {"head_attention": {"length": 2}},
    },
    "multi-head parallel adapter (`head_attention`, relu)": {
        "representation": "attention.heads", "form": {"head_attention": {"length": 2, "activation": "relu"}},
    },
    "prompt": {"representation": "input", "form": {"prompt": {"length": 2}}, "composition": "gate"},
    "`bottleneck` with a layer norm of its own": {
        "representation": "ffn", "insertion": "parallel", "form": {"bottleneck": SMALL | {"layer_norm": "in"}},
    },
    "parallel FFN `bottleneck`, `reads: residual`, in pre-norm blocks": {
        "representation": "ffn", "insertion": {"parallel": {"reads": "residual"}},
        "form": {"bottleneck": SMALL | {"activation": "model"}},
    },
    "parallel change of `attention`": {"representation": "attention", "form": {"low_rank": SMALL}},
    "parallel change of `attention.heads`": {"representation": "attention.heads", "form": {"low_rank": SMALL}},
    "parallel change of `ffn.hidden`": {"representation": "ffn.hidden", "form": {"low_rank": SMALL}},
    "sequential `bottleneck` after a sub-layer (Houlsby)": {
        "representation": "ffn", "insertion": "sequential", "form": {"bottleneck": SMALL},
    },
    "sequential change of `block` (Pfeiffer)": {
        "representation": "block", "insertion": "sequential", "form": {"bottleneck": SMALL},
    },
}  # fmt: skip
WORDS = {
    "the weights before it": "weights",
    "the weights after it": "weights",
    "the norm before it": "norm",
    "hidden units of the FFN": "wider FFN",
}


class Space:
    """What becomes of one change, in the models of every kind."""

    def __init__(self) -> None:
        self.models = {kind: build(name) for kind, name in KINDS.items()}

    def outcome(self, kind: str, change: dict[str, Any]) -> tuple[str, str]:
        """Return a word, and the reason where it stays."""
        model = self.models[kind]
        try:
            attachment = attach(model, Method.from_plain({"modifications": [change]}), train_head=False)
        except PlanError:
            return "", ""
        scatter(attachment)
        try:
            report = examine(model)
        finally:
            detach(model)
        row = report.rows[0]
        if row.reason:
            return "stays", row.reason
        if all("was tied to" in reason for reason in report.not_plain):  # untied, as the page says below
            return WORDS[row.into], ""
        return "FFN with two activations" if "activation" in report.not_plain[0] else "wider FFN with biases", ""

    def cell(self, change: dict[str, Any]) -> str:
        """Return a cell of the table: one word, or one for each kind where they differ."""
        found = {kind: self.outcome(kind, change)[0] for kind in self.models}
        present = {kind: word for kind, word in found.items() if word}
        if len(set(present.values())) <= 1:
            return next(iter(present.values()), "-").replace("stays", "-")
        kinds: dict[str, list[str]] = {}
        for kind, word in present.items():
            kinds.setdefault(word.replace("stays", "-"), []).append(kind)
        return "; ".join(f"{word} ({', '.join(names)})" for word, names in kinds.items())


def table() -> str:
    """Return the table as Markdown."""
    space = Space()
    lines = [f"| representation | {' | '.join(CHANGES)} |", "|" + "---|" * (len(CHANGES) + 1)]
    for name in NAMES:
        if name != "input":
            cells = [space.cell({"representation": name, **change}) for change in CHANGES.values()]
            lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def reasons() -> str:
    """Return, as Markdown, why changes stay."""
    space = Space()
    lines = ["| change | why it stays |", "|---|---|"]
    for title, change in INSIDE.items():
        word, why = space.outcome("pre-norm", change)
        assert word == "stays", title
        lines.append(f"| {title} | {why} |")
    return "\n".join(lines) + "\n"
