"""How PEFT names a model's modules, and which places of ours these are.

A *projection* is a linear module; where it is fused (GPT-2's ``c_attn``) it is several places of ours, each with
some of its features.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from unipetl.architectures import Site
from unipetl.architectures.embeddings import embedding_shape
from unipetl.errors import InteropError, nearest
from unipetl.folding.linear import transposed
from unipetl.method import Method
from unipetl.planning import plan, sites_of
from unipetl.representation import PROJECTIONS

PREFIX = "base_model.model."
#: Representations that are the argument of a linear module.
ARGUMENTS = ("attention.heads", "ffn.hidden")
_TASKS = {
    "ForSequenceClassification": "SEQ_CLS",
    "ForTokenClassification": "TOKEN_CLS",
    "ForQuestionAnswering": "QUESTION_ANS",
    "ForCausalLM": "CAUSAL_LM",
    "LMHeadModel": "CAUSAL_LM",
    "ForConditionalGeneration": "SEQ_2_SEQ_LM",
    "MTModel": "SEQ_2_SEQ_LM",
}
#: The modules that PEFT trains and saves by itself for a task, by the end of their path (letter by letter).
OWN_HEADS = {
    "SEQ_CLS": ("classifier", "score"),
    "TOKEN_CLS": ("classifier", "score"),
    "QUESTION_ANS": ("qa_outputs",),
}


class Places:
    """The projections of one model, and the places of ours they are."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.sites = sites_of(model)
        self.base = plan(_NOTHING, model, train_head=False).base
        self.results: dict[str, list[Site]] = {}
        self.arguments: dict[str, list[Site]] = {}
        #: (module of experts, its parameter) -> the places that the parameter is
        self.stacked: dict[tuple[str, str], list[Site]] = {}
        for site in self.sites:
            if site.stacked is not None:  # a parameter and no module
                if site.representation in PROJECTIONS:
                    self.stacked.setdefault((site.owner, site.stacked.parameter), []).append(site)
            elif site.representation in (*PROJECTIONS, "embedding"):
                self.results.setdefault(site.value.module, []).append(site)
            elif site.representation in ARGUMENTS:
                self.arguments.setdefault(site.value.module, []).append(site)

    def module(self, path: str) -> str:
        """Return the path in this model of a module that a file names.

        A file of a classifier may name ``bert.encoder...`` where this model is the bare encoder, or the other
        way round.

        Raises:
            InteropError: there is no such module; with the near match.
        """
        names = dict(self.model.named_modules())
        shorter = path.partition(".")[2]
        for candidate in (path, f"{self.base}.{path}" if self.base else path, shorter):
            if (
                candidate
                and candidate in names
                and (candidate == path or candidate.startswith(f"{self.base}." if self.base else ""))
            ):
                return candidate
        near = nearest(path, names)
        hint = f"Did you load the right base? The nearest is {near!r}." if near else "Is it the right base, and class?"
        raise InteropError(
            f"the file names a module {path!r}, which this {type(self.model).__name__} does not have. {hint}"
        )

    def fan_in_fan_out(self, paths: Iterable[str]) -> bool:
        """Return whether the projections keep their weights transposed, as transformers' Conv1D does."""
        modules = [self.model.get_submodule(path) for path in paths]
        return any(transposed(one) and not isinstance(one, nn.Embedding) for one in modules)


def features_of(model: nn.Module, path: str) -> tuple[int, int]:
    """Return the in and out features of a linear module, or of an embedding."""
    module: Any = model.get_submodule(path)
    if isinstance(module, (nn.Embedding, nn.modules.conv._ConvNd)):
        shape = embedding_shape(module, path)
        return shape.in_features, shape.out_features
    return (module.nx, module.nf) if transposed(module) else (module.in_features, module.out_features)


def task_of(model: nn.Module) -> str | None:
    """Return PEFT's word for what a model's class is for, or None."""
    for ending, task in _TASKS.items():
        if any(cls.__name__.endswith(ending) for cls in type(model).__mro__):
            return task
    return None


def name_of_base(model: nn.Module) -> str:
    """Return where a model came from, as far as its config says."""
    return str(getattr(getattr(model, "config", None), "name_or_path", "") or "")


def matches(targets: str | Sequence[str], path: str) -> bool:
    """Return whether PEFT's ``target_modules`` name the module at ``path``.

    A string is a regular expression for the whole path; a list holds paths, or their ends after a dot.
    """
    if isinstance(targets, str):
        return re.fullmatch(targets, path) is not None
    return any(path == one or path.endswith(f".{one}") for one in targets)


def pattern_value(patterns: Mapping[str, Any], path: str, default: Any) -> Any:
    """Return what ``rank_pattern`` or ``alpha_pattern`` says for a module; the first that fits counts."""
    for key, value in patterns.items():
        if re.match(rf"(.*\.)?({key})$", path):
            return value
    return default


def short_names(model: nn.Module, paths: Iterable[str]) -> list[str]:
    """Return names for ``target_modules`` that mean ``paths`` and nothing else: their last parts where that holds."""
    wanted = set(paths)
    short = sorted({path.rpartition(".")[2] for path in wanted})
    named = {path for path, _ in model.named_modules() if matches(short, path)}
    return short if named == wanted else sorted(wanted)


_NOTHING = Method()
