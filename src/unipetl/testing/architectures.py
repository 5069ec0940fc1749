"""A check of a whole architecture: every named method on one model, law by law."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Mapping
from typing import Any

from torch import nn

from unipetl.architectures import Architecture, table_of
from unipetl.errors import CheckError, PlanError
from unipetl.method import Method
from unipetl.planning import plan
from unipetl.testing.calls import Calls, call_reaching, calls_of
from unipetl.testing.compare import Call
from unipetl.testing.contract import broken_law
from unipetl.testing.models import batch, prompt

#: Every catalogue entry at toy size, and the variants of it that take another path through the code.
SMALL: Mapping[str, str] = {
    "full": "full",
    "head_only": "head_only",
    "bitfit": "bitfit",
    "prompt_tuning": "prompt_tuning(length=3)",
    "prefix_tuning": "prefix_tuning(length=3, mlp=4)",
    "prefix_tuning without MLP": "prefix_tuning(length=3, mlp=None)",
    "adapter": "adapter(rank=3)",
    "houlsby": "houlsby(rank=3)",
    "houlsby, official": "houlsby(rank=3, variant=official)",
    "pfeiffer": "pfeiffer(rank=3)",
    "pfeiffer, official": "pfeiffer(rank=3, variant=official)",
    "lora": "lora(rank=2)",
    "lora everywhere": "lora(rank=2, at=all)",
    "lora of embeddings": "lora(rank=2, at=embedding)",
    "parallel_adapter": "parallel_adapter(rank=3, at=both)",
    "parallel_adapter, official": "parallel_adapter(rank=3, at=both, variant=official)",
    "multi_head_parallel_adapter": "multi_head_parallel_adapter(rank=4)",
    "multi_head_parallel_adapter, official": "multi_head_parallel_adapter(rank=4, variant=official)",
    "scaled_parallel_adapter": "scaled_parallel_adapter(rank=3)",
    "scaled_parallel_adapter, learned": "scaled_parallel_adapter(rank=3, scale=learned)",
    "ungated_prefix": "ungated_prefix(length=3, mlp=None)",
    "mam": "mam(length=2, rank=3, mlp=4)",
    "ia3": "ia3",
}


def check_architecture(
    model: nn.Module,
    *,
    methods: Mapping[str, str] = SMALL,
    call: Call | None = None,
    padded: Call | None = None,
    architecture: Architecture | None = None,
    compiled: bool = False,
) -> dict[str, str]:
    """Check every law on a small model, in float64 and on copies: the model itself is not touched.

    Args:
        model: a small model; [build][unipetl.testing.build] makes them for the known families.
        methods: name -> text of the methods to check; the whole catalogue by default.
        call: the arguments of one call, with labels if it takes some; made for transformers models.
        padded: the arguments of a call with a padded row; made like ``call``, left out where only ``call`` is given.
        architecture: a table for a family that unipetl does not know.
        compiled: whether to compile the model with each method, too: no graph breaks (seconds for each).

    Returns:
        Method -> ``ok``, or ``refused: `` and the reason that ``plan`` gives.

    Raises:
        CheckError: a law does not hold; the message names the method and the law.
        ArchitectureError: nothing is known of the model, and no call could be made.
    """
    double = copy.deepcopy(model).double().eval()
    with contextlib.suppress(ValueError, AttributeError, NotImplementedError):
        double.set_experts_implementation("eager")  # type: ignore[operator]  # the fused one has no float64
    known = plan(Method(), double, architecture=architecture).architecture
    options: dict[str, Any] = {} if architecture is None else {"architecture": architecture}
    calls = _calls(double, known, call, padded, options)
    report = {}
    for name, text in methods.items():
        try:
            plan(text, double, **options)
        except PlanError as refusal:
            report[name] = f"refused: {refusal}"
            continue
        broken = broken_law(
            double, text, calls, options, atol=1e-9 if call or _in_tables(double) else 1e-5, compiled=compiled
        )
        if broken is not None:
            raise CheckError(f"{type(model).__name__}, {name} ({text}), {broken}")
        report[name] = "ok"
    return report


def _in_tables(model: nn.Module) -> bool:
    return table_of(str(getattr(getattr(model, "config", None), "model_type", ""))) is not None


def _calls(
    model: nn.Module, known: Architecture, call: Call | None, padded: Call | None, options: dict[str, Any]
) -> Calls:
    """Return the given calls, those made for the known families, or those made for any model."""
    if call is not None:
        return Calls(call, padded)
    if not _in_tables(model):
        made, reached = call_reaching(model, known)
        options["architecture"] = reached
        return calls_of(model, made)
    able = getattr(model, "can_generate", None)
    start = prompt(model) if callable(able) and able() else None
    return Calls(batch(model), batch(model, padding="right", labels=False) if padded is None else padded, start)
