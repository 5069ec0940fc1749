r"""What training costs, in floating-point operations, by the usual count: two per parameter and token.

.. math:: F = \sum_{side} T_{side}\,(k B_{side} + 6 A_{side}), \quad k = 4 \text{ or } 6

T are tokens that a side of the model reads or writes, B the weight matrices of the pretrained model on that side, A
those that the method adds. The decoder makes keys and values of cross-attention from what the encoder read: they are
counted on the source's side. Going forward takes 2 operations per weight and token, going back to the activations 2
more, and going back to the weights another 2, which a frozen weight does not need: k = 4 beside a method, 6 in full
fine-tuning. Methods save at most a third of the operations; what they save is memory.

Counted are matrices that tokens go through, the output projection included. Not counted: embeddings, scores of
attention (which grow with the square of the length), norms, a prefix's MLP (once a step), evaluation on the way. Tokens
are those of full batches at the task's longest lengths. F is an estimate: shorter texts take less, what is not counted
takes more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from unipetl.architectures import Site
from unipetl.planning import Plan, sites_of
from unipetl.reproduction.settings import TaskSettings


@dataclass(frozen=True)
class Cost:
    """What a run costs.

    Attributes:
        steps: optimisation steps.
        source, target: tokens read and written, at most.
        flops: operations, an estimate.
    """

    steps: int
    source: int
    target: int
    flops: float


def training_cost(model: nn.Module, plan: Plan, settings: TaskSettings, training: Mapping[str, Any]) -> Cost:
    """Return what one run costs.

    Args:
        model: the model; a skeleton without weights will do.
        plan: the method on it.
        settings: the task.
        training: training arguments.
    """
    steps, source, target = _tokens(settings, training)
    factor = 6 if "all" in plan.method.train else 4
    base = _matrices(model, writes=bool(settings.target))
    added = {"source": 0, "target": 0}
    for one in plan.placements:
        added["source" if _of_source(one.site) else _side(one.site.name)] += one.paper_parameters
    tokens = {"source": source, "target": target}
    flops = sum(tokens[side] * (factor * base[side] + 6 * added[side]) for side in tokens)
    return Cost(steps, source, target, float(flops))


def _tokens(settings: TaskSettings, training: Mapping[str, Any]) -> tuple[int, int, int]:
    """Return steps, and tokens read and written in all of them."""
    parts = int(training.get("gradient_accumulation_steps", 1))
    budget = training.get("max_tokens_per_batch")
    examples = int(training.get("per_device_train_batch_size", 8)) * parts
    steps = int(training.get("max_steps", -1))
    if steps < 0:
        steps = int(training.get("num_train_epochs", 3) * settings.examples / examples)
    if budget:
        return steps, steps * int(budget) * parts, steps * int(budget) * parts
    return steps, steps * examples * settings.source, steps * examples * settings.target


def _matrices(model: nn.Module, *, writes: bool) -> dict[str, int]:
    """Return the weights of the matrices that tokens go through, by side."""
    tables = {id(one.weight) for one in model.modules() if isinstance(one, nn.Embedding)}
    sites = sites_of(model)
    of_source = {one.value.module for one in sites if _of_source(one)}
    of_source -= {one.value.module for one in sites if not _of_source(one)}  # one matrix for queries and keys
    found = {"source": 0, "target": 0}
    for name, parameter in model.named_parameters():
        if parameter.ndim >= 2 and id(parameter) not in tables:
            side = "source" if name.rpartition(".")[0] in of_source else _side(name)
            found[side] += parameter.numel()
    config: Any = model.config
    if writes:
        side = "target" if config.is_encoder_decoder else "source"
        width = getattr(config, "hidden_size", None) or config.d_model
        tied = not any(name.startswith("lm_head") and id(one) not in tables for name, one in model.named_parameters())
        found[side] += int(config.vocab_size * width) if tied else 0
    return found


def _of_source(site: Site) -> bool:
    """Say whether a place in the decoder computes with what the encoder read."""
    return site.kind == "cross" and site.representation in ("attention.key", "attention.value")


def _side(name: str) -> str:
    parts = name.split(".")
    return "target" if "decoder" in parts or "lm_head" in parts else "source"
