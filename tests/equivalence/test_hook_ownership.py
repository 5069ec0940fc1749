"""Each change belongs to its own layer and its own model: wrapped, shared, copied, stacked."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unipetl
from equivalence.checks import randomize
from equivalence.oracle_changes import delta
from equivalence.tiny import MAM, PREFIX, PROMPT, attached, first, model, words
from unipetl import Bottleneck, Method, Modification
from unipetl.insertion import Sequential
from unipetl.testing import build

TANH = Bottleneck(rank=3, activation="tanh")
NORMED = Method(
    modifications=(Modification(representation="ffn.residual", form=TANH, insertion=Sequential(reads="normed")),)
)
DEPTH = 4
DEEP = {
    "bert": {"num_hidden_layers": DEPTH},
    "roberta": {"num_hidden_layers": DEPTH},
    "distilbert": {"n_layers": DEPTH},
    "gpt2": {"n_layer": DEPTH},
    "llama": {"num_hidden_layers": DEPTH},
    "qwen3": {"num_hidden_layers": DEPTH},
}
METHODS: dict[str, Any] = {
    "normed": NORMED,
    "prefix": PREFIX,
    "normed query": "multi_head_parallel_adapter(rank=3, variant=official)",
    "parallel": "scaled_parallel_adapter(rank=3) + lora(rank=2)",
    "sequential": "houlsby(rank=3) + ia3()",
}


def states(one: Any, ids: Tensor) -> list[Tensor]:
    """Return the hidden states before and after every block, without the stack's last norm."""
    seen: list[Tensor] = []
    blocks = next(module for module in one.modules() if isinstance(module, nn.ModuleList) and len(module) == DEPTH)
    take = lambda module, args, out: seen.append(out[0] if isinstance(out, tuple) else out)  # noqa: E731
    handles = [block.register_forward_hook(take) for block in blocks]
    with torch.no_grad():
        one(input_ids=ids)
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("family", DEEP)
def test_a_layers_change_acts_from_that_layer_on(family: str, name: str) -> None:
    if name == "normed" and family in ("gpt2", "llama", "qwen3"):
        pytest.skip("no norm follows the residual stream in a pre-norm model")
    one = model(family, "base", **DEEP[family])
    ids = words()
    with attached(one, METHODS[name]) as tensors:
        before = states(one, ids)
        for layer in range(DEPTH):
            own = [tensor for place, tensor in tensors.items() if place.split(".")[1] == str(layer)]
            assert own
            kept = [tensor.detach().clone() for tensor in own]
            for tensor in own:
                tensor.data.mul_(-1.5)
            after = states(one, ids)
            for number, (a, b) in enumerate(zip(before, after, strict=True)):
                assert torch.equal(a, b) == (number < layer), f"layer {layer} and block {number}"
            for tensor, value in zip(own, kept, strict=True):
                tensor.data.copy_(value)


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_a_normed_change_uses_the_norm_of_its_own_layer(family: str) -> None:
    """Another layer's norm would give other numbers: each has random weights of its own."""
    one = model(family, "base", **DEEP[family])
    norm = "output_layer_norm" if family == "distilbert" else "output.LayerNorm"
    blocks = next(module for module in one.modules() if isinstance(module, nn.ModuleList) and len(module) == DEPTH)
    norms = [block.get_submodule(norm) for block in blocks]
    before: list[Tensor] = []
    after: list[Tensor] = []
    # Hooks run in the order of their registration: these before the attachment's, the later ones after it.
    handles = [one.register_forward_pre_hook(lambda module, args: before.append(args[0])) for one in norms]
    with attached(one, NORMED) as tensors, torch.no_grad():
        handles += [one.register_forward_pre_hook(lambda module, args: after.append(args[0])) for one in norms]
        one(input_ids=words())
        values = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    for handle in handles:
        handle.remove()
    for layer in range(DEPTH):
        own = {name.rpartition("/")[2]: t for name, t in values.items() if name.split(".")[1] == str(layer)}
        for number, other in enumerate(norms):
            want = before[layer] + delta(TANH, own, other.forward(before[layer]))
            assert torch.allclose(after[layer], want, rtol=0, atol=1e-12) == (number == layer)


class Inner(nn.Module):
    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, **inputs: Tensor) -> Tensor:
        return first(self.encoder(**inputs)).mean(1)


class Outer(nn.Module):
    """A user's own model, two wrappers deep."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.body = Inner(encoder)
        self.score = nn.Linear(16, 2, dtype=torch.float64)

    def forward(self, **inputs: Tensor) -> Tensor:
        return self.score(self.body(**inputs))


@pytest.mark.parametrize("method", [MAM, PROMPT, "lora(rank=2)"])
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_a_model_two_wrappers_deep_is_changed_from_the_inside(family: str, method: str) -> None:
    outer = Outer(build(family, "base", dtype=torch.float64))
    keys = set(outer.state_dict())
    inputs = {"input_ids": words()}
    bare = outer(**inputs)
    attachment = unipetl.attach(outer.body.encoder, method)
    randomize(attachment.tensors())
    changed = outer(**inputs)
    assert (changed - bare).abs().max() > 1e-3
    changed.sum().backward()
    assert all(tensor.grad is not None and tensor.grad.abs().max() > 0 for tensor in attachment.tensors().values())
    assert keys < set(outer.state_dict())
    attachment.detach()
    assert torch.equal(outer(**inputs), bare)
    assert set(outer.state_dict()) == keys


@pytest.mark.parametrize("family", ["bert", "bart", "t5", "gpt2", "llama"])
def test_two_attachments_share_a_base_in_turn(family: str) -> None:
    one = model(family, "base")
    inputs = {"input_ids": words()} | ({"decoder_input_ids": words()} if one.config.is_encoder_decoder else {})

    def run() -> Tensor:
        with torch.no_grad():
            return first(one(**inputs))

    bare = run()
    alone = {}
    texts = {"first": MAM, "second": "houlsby(rank=2) + lora(rank=2)"}
    for number, (name, text) in enumerate(texts.items()):
        with attached(one, text) as tensors:
            randomize(tensors, seed=number)
            alone[name] = run()
    for number, (name, text) in enumerate(texts.items()):
        unipetl.activate(one, None)
        randomize(unipetl.attach(one, text, name=name).tensors(), seed=number)
        assert torch.equal(run(), alone[name])
    for name in ("first", "second", "first"):
        unipetl.activate(one, name)
        assert torch.equal(run(), alone[name])
    unipetl.activate(one, None)
    assert torch.equal(run(), bare)
    unipetl.detach(one, "first")
    unipetl.activate(one, "second")
    assert torch.equal(run(), alone["second"])
    unipetl.detach(one)
    assert torch.equal(run(), bare)


@pytest.mark.parametrize("method", [MAM, PROMPT, "multi_head_parallel_adapter(rank=3, variant=official)", "ia3()"])
@pytest.mark.parametrize("family", ["roberta", "bart", "llama"])
def test_a_deep_copy_has_hooks_of_its_own(family: str, method: str) -> None:
    one = build(family, "base", dtype=torch.float64)
    inputs = {"input_ids": words()} | ({"decoder_input_ids": words()} if one.config.is_encoder_decoder else {})
    with attached(one, method), torch.no_grad():
        want = first(one(**inputs))
        other = copy.deepcopy(one)
        assert torch.equal(first(other(**inputs)), want)
        randomize(unipetl.attachments(other)[0].tensors(), seed=77)
        assert (first(other(**inputs)) - want).abs().max() > 1e-3
        assert torch.equal(first(one(**inputs)), want)
        unipetl.detach(other)
        assert torch.equal(first(one(**inputs)), want)
