"""torch.compile takes an attached model whole: one graph, no break, the same numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from equivalence.tiny import MAM, PREFIX, PROMPT, attached, first, model, padded, words

METHODS = {
    "lora": "lora(rank=2, at=all)",
    "prefix": PREFIX,
    "prefix with its mlp": "prefix_tuning(length=5, mlp=6)",
    "mam": MAM,
    "houlsby": "houlsby(rank=2)",
    "ia3": "ia3()",
    "multi-head": "multi_head_parallel_adapter(rank=3, variant=official)",
}


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def compare(family: str, method: str, backend: str) -> None:
    one = model(family, "base", num_hidden_layers=1)  # compiling takes its time for every layer
    inputs: dict[str, Any] = padded(words(), "right") | ({"use_cache": False} if family == "llama" else {})
    with torch.no_grad(), attached(one, method):
        want = first(one(**inputs))
        got = first(torch.compile(one, fullgraph=True, backend=backend)(**inputs))
    torch.testing.assert_close(got, want, rtol=0, atol=1e-6)
    assert (got - first(one(**inputs))).abs().max() > 1e-3


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "mam" else pytest.mark.slow) for name in METHODS]
)
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_a_forward_pass_is_one_graph(family: str, name: str) -> None:
    compare(family, METHODS[name], "eager")


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_a_prompts_forward_pass_is_one_graph(family: str) -> None:
    compare(family, PROMPT, "eager")


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_a_forward_pass_is_one_graph_down_to_torchs_operators(family: str, name: str) -> None:
    compare(family, METHODS[name], "aot_eager")


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_a_training_step_is_one_graph_with_the_same_gradients(family: str) -> None:
    one = model(family)
    ids = words()
    inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    inputs |= {"labels": torch.tensor([0, 1])} if family == "bert" else {"labels": ids, "use_cache": False}
    with attached(one, MAM) as tensors:
        plain = torch.autograd.grad(one(**inputs).loss, list(tensors.values()))
        compiled = torch.compile(one, fullgraph=True, backend="aot_eager")
        got = torch.autograd.grad(compiled(**inputs).loss, list(tensors.values()))
    assert all(gradient.abs().max() > 0 for gradient in got)
    for a, b in zip(got, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
