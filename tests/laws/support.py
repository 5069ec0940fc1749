"""What the law tests share: models built once and copied, methods to try, and the way to explore the space."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import Phase, given, seed, settings
from torch import Tensor, nn

import unipetl
from unipetl.errors import CheckError
from unipetl.testing import FAMILIES, Family, build
from unipetl.testing.models import copied
from unipetl.testing.strategies import methods

#: Families whose layers another one has, but for a window, biases or a gate: the laws try them in the slow run.
ALIKE = {"mistral": "llama", "qwen2": "qwen3", "t5": "t5_gated"}
#: Families whose layers compute as another one's, under other names or after other positions. What is the same for
#: equal layers is tried on them in the slow run. Names, positions and norms are not: detaching, gradients, saving, the
#: base, padding and a mix of routed rows are tried on these families always, and the contract in test_architectures.py.
LAYERS_ALIKE = {"roberta": "bert", "distilbert": "bert", "marian": "bart", "mbart": "bart"}


def each(families: Iterable[Family], alike: Mapping[str, str] = ALIKE) -> pytest.MarkDecorator:
    """Run a test on every family, on those that are like another one in the slow run."""
    slow = [pytest.mark.slow]
    return pytest.mark.parametrize(
        "family", [pytest.param(one, id=str(one), marks=slow if one.name in alike else []) for one in families]
    )


EACH_FAMILY = each(FAMILIES)
EACH_LAYER = each(FAMILIES, ALIKE | LAYERS_ALIKE)
GENERATING = each((one for one in FAMILIES if one.kind != "encoder"), ALIKE | LAYERS_ALIKE)
CAUSAL = GENERATING
#: How many random methods a law is tried on, per family: a few by default, many in the slow run.
EXAMPLES = pytest.mark.parametrize(
    "examples", [pytest.param(2, id="few"), pytest.param(40, id="many", marks=pytest.mark.slow)]
)


@cache
def _pristine(name: str, head: str | None, dtype: torch.dtype, implementation: str | None) -> nn.Module:
    return build(name, head, dtype=dtype, attn_implementation=implementation)


def fresh(
    family: Family, head: str | None = None, dtype: torch.dtype = torch.float64, implementation: str | None = None
) -> Any:
    """A new copy of the family's tiny model."""
    return copied(_pristine(family.name, head, dtype, implementation))


def explore(law: str, family: Family, examples: int, check: Callable[..., None], **options: Any) -> None:
    """Run ``check(model, method)`` on random methods that the family takes."""
    profile = settings.get_current_profile_name()

    @settings(max_examples=examples, database=None, phases=[Phase.generate])  # shrinking a model takes minutes
    @given(method=methods(_pristine(family.name, None, torch.float64, None), **options))
    def run(method: unipetl.Method) -> None:
        check(fresh(family), method)

    if profile == "ci":  # other methods for each law and family, the same ones in every run
        run = seed(zlib.crc32(f"{law} {family}".encode()))(run)
    run()


def tolerance(family: Family) -> float:
    """How far two ways to the same result may differ: rotary models compute norms and angles in float32."""
    return 1e-5 if family.name in ("llama", "mistral", "qwen2", "qwen3") else 1e-9


def broken(match: str = "") -> Any:
    """Expect a law to notice what was planted."""
    return pytest.raises(CheckError, match=match)


def family_named(name: str) -> Family:
    """The family called ``name``."""
    return next(one for one in FAMILIES if one.name == name)


def refused(model: nn.Module, method: str) -> bool:
    """Whether ``plan`` has a reason against the method on this model."""
    try:
        unipetl.plan(method, model)
    except unipetl.errors.PlanError:
        return True
    return False


def at_tokens(call: dict[str, Tensor], result: Tensor) -> Tensor:
    """The part of a result that belongs to tokens, and not to padding."""
    mask = call.get("decoder_attention_mask", None if "decoder_input_ids" in call else call.get("attention_mask"))
    if mask is None or result.shape[:2] != mask.shape:
        return result
    return result[mask.bool()]
