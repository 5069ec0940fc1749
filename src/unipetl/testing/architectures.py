"""A check of a whole architecture: every named method on one model, law by law."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from unipetl.architectures import Architecture
from unipetl.errors import CheckError, PlanError
from unipetl.planning import plan
from unipetl.testing import laws
from unipetl.testing.compare import Call
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
) -> dict[str, str]:
    """Check every law on a small model, in float64 and on copies: the model itself is not touched.

    Args:
        model: a small model; [build][unipetl.testing.build] makes them for the known families.
        methods: name -> text of the methods to check; the whole catalogue by default.
        call: the arguments of one call, with labels if it takes some; made for transformers models.
        padded: the arguments of a call with a padded row; made like ``call``, left out where only ``call`` is given.
        architecture: a table for a family that unipetl does not know.

    Returns:
        Method -> ``ok``, or ``refused: `` and the reason that ``plan`` gives.

    Raises:
        CheckError: a law does not hold; the message names the method and the law.
    """
    double = copy.deepcopy(model).double().eval()
    if call is None:
        call = batch(double)
        padded = batch(double, padding="right", labels=False) if padded is None else padded
    options: dict[str, Any] = {} if architecture is None else {"architecture": architecture}
    report = {}
    for name, text in methods.items():
        try:
            plan(text, double, **options)
        except PlanError as refusal:
            report[name] = f"refused: {refusal}"
            continue
        _check_method(double, name, text, call, padded, options)
        report[name] = "ok"
    return report


def _check_method(
    model: nn.Module, name: str, text: str, call: Call, padded: Call | None, options: dict[str, Any]
) -> None:
    def fresh() -> nn.Module:
        return copy.deepcopy(model)

    def save() -> None:
        with tempfile.TemporaryDirectory() as folder:
            laws.survives_saving(fresh(), fresh(), text, call, Path(folder), **options)

    checks = {
        "starts as the bare model": lambda: laws.starts_as_the_bare_model(fresh(), text, call, **options),
        "trains its own and nothing else": lambda: laws.trains_its_own_and_nothing_else(fresh(), text, call, **options),
        "leaves the base alone": lambda: laws.leaves_the_base_alone(fresh(), text, call, **options),
        "detaches exactly": lambda: laws.detaches_exactly(fresh(), text, call, **options),
        "survives saving": save,
    }
    if padded is not None:
        checks["ignores padding"] = lambda: laws.ignores_padding(fresh(), text, padded, **options)
    if callable(getattr(model, "can_generate", None)) and model.can_generate():  # type: ignore[operator]
        start = prompt(model)
        checks["generates the same without a cache"] = lambda: laws.generates_the_same_without_cache(
            fresh(), text, start, **options
        )
    for law, check in checks.items():
        try:
            check()
        except Exception as fault:  # a wrong table can make a model raise anything
            kind = "" if isinstance(fault, CheckError) else f"{type(fault).__name__}: "
            raise CheckError(f"{type(model).__name__}, {name} ({text}), {law}: {kind}{fault}") from fault
