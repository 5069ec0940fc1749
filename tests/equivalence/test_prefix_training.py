"""Gradients: the same with and without checkpointing, and none that is silently zero."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import unipetl
from equivalence.checks import randomize
from equivalence.tiny import PREFIX, PROMPT
from unipetl.testing import batch, build

# The name of the switch changes within transformers 5; the older one works on all of them.
pytestmark = pytest.mark.filterwarnings("ignore:.gradient_checkpointing:FutureWarning")

MLP = "prefix_tuning(length=5, mlp=6)"
METHODS = [
    PREFIX,
    PROMPT,
    "mam(length=5, rank=4, mlp=6)",
    "lora(rank=2, at=all) + houlsby(rank=2, activation=tanh) + ia3()",
]
DROPOUTS = (
    *("dropout", "attention_dropout", "activation_dropout", "dropout_rate", "hidden_dropout_prob"),
    *("attention_probs_dropout_prob", "embd_pdrop", "attn_pdrop", "resid_pdrop", "classifier_dropout"),
)
FAMILIES = ["bert", "bart", "mbart", "t5_gated", "gpt2", "llama"]


def gradients(one: Any, inputs: dict[str, Tensor]) -> tuple[float, dict[str, Tensor]]:
    """Return the loss and the gradient of every trained parameter; a missing one is a fault."""
    one.train()
    one.zero_grad(set_to_none=True)
    loss = one(**inputs, use_cache=False).loss if "gpt" in one.config.model_type else one(**inputs).loss
    loss.backward()
    trained = {name: parameter for name, parameter in one.named_parameters() if parameter.requires_grad}
    assert all(parameter.grad is not None for parameter in trained.values())
    return float(loss.detach()), {name: parameter.grad.clone() for name, parameter in trained.items()}


def fresh(family: str, **settings: Any) -> tuple[Any, dict[str, Tensor]]:
    """Return a model of its own without dropout, and a batch with padding."""
    one = build(family, dtype=torch.float64, **{**dict.fromkeys(DROPOUTS, 0.0), **settings})
    return one, batch(one, padding="none" if family == "whisper" else "right")


@pytest.mark.parametrize(("when", "reentrant"), [("before", True), ("after", True), ("after", False)])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", FAMILIES)
def test_checkpointing_changes_no_gradient(family: str, method: str, when: str, reentrant: bool) -> None:
    one, inputs = fresh(family, attn_implementation="sdpa")
    options = {"gradient_checkpointing_kwargs": {"use_reentrant": reentrant}}
    if when == "before":
        one.gradient_checkpointing_enable(**options)
    randomize(unipetl.attach(one, method).tensors(), spread=0.3)
    if when == "after":
        one.gradient_checkpointing_enable(**options)
    loss, got = gradients(one, inputs)
    one.gradient_checkpointing_disable()
    plain_loss, want = gradients(one, inputs)
    assert got.keys() == want.keys()
    assert abs(loss - plain_loss) < 1e-12
    for name, gradient in got.items():
        assert gradient.abs().max() > 0, f"{name} gets no gradient"
        torch.testing.assert_close(gradient, want[name], rtol=0, atol=1e-10)


@pytest.mark.parametrize("family", [*FAMILIES, "whisper"])
def test_checkpointing_needs_no_gradient_from_the_embedding(family: str) -> None:
    """transformers marks the token embedding's result itself where there is one; without that mark all still learn."""
    one, inputs = fresh(family)
    randomize(unipetl.attach(one, "mam(length=5, rank=4, mlp=6)").tensors(), spread=0.3)
    _, want = gradients(one, inputs)
    one.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": True})
    if family != "whisper":
        one.disable_input_require_grads()
    _, got = gradients(one, inputs)
    for name, gradient in got.items():
        assert gradient.abs().max() > 0, f"{name} gets no gradient"
        torch.testing.assert_close(gradient, want[name], rtol=0, atol=1e-10)


@pytest.mark.parametrize("padding", ["none", "right", "left"])
@pytest.mark.parametrize("family", ["llama", "mistral", "qwen3", "gpt2"])
def test_a_checkpointed_decoder_trains_its_prefix_under_any_mask(family: str, padding: Any) -> None:
    one, _ = fresh(family, attn_implementation="sdpa")
    inputs = batch(one, padding=padding)
    randomize(unipetl.attach(one, "mam(length=5, rank=4, mlp=6)").tensors(), spread=0.3)
    plain_loss, want = gradients(one, inputs)
    one.gradient_checkpointing_enable()
    loss, got = gradients(one, inputs)
    assert abs(loss - plain_loss) < 1e-10
    for name, gradient in got.items():
        assert gradient.abs().max() > 0
        torch.testing.assert_close(gradient, want[name], rtol=0, atol=1e-8)


DEPTHS = [(2, 3), (3, 1)]


@pytest.mark.parametrize("depths", DEPTHS)
@pytest.mark.parametrize("method", [PREFIX, "mam(length=5, rank=4, mlp=6) + multi_head_parallel_adapter(rank=3)"])
@pytest.mark.parametrize("family", ["bart", "mbart", "marian", "t5"])
def test_encoder_and_decoder_need_not_be_equally_deep(family: str, method: str, depths: tuple[int, int]) -> None:
    names = ("num_layers", "num_decoder_layers") if family == "t5" else ("encoder_layers", "decoder_layers")
    one, inputs = fresh(family, **dict(zip(names, depths, strict=True)))
    attachment = unipetl.attach(one, method)
    randomize(attachment.tensors(), spread=0.3)
    _, got = gradients(one, inputs)
    places = {place.site.name for place in attachment.plan.placements if place.site.representation == "attention.heads"}
    assert len(places) == depths[0] + 2 * depths[1]
    assert all(gradient.abs().max() > 0 for gradient in got.values())


@pytest.mark.parametrize(("encoder", "decoder"), [(4, 2), (2, 4), (8, 1)])
@pytest.mark.parametrize("family", ["bart", "mbart"])
def test_encoder_and_decoder_need_not_have_as_many_heads(family: str, encoder: int, decoder: int) -> None:
    one, inputs = fresh(family, encoder_attention_heads=encoder, decoder_attention_heads=decoder)
    attachment = unipetl.attach(one, MLP)
    randomize(attachment.tensors(), spread=0.3)
    heads = {one.site.stack.stack: one.shape.key_heads for one in attachment.plan.placements}
    assert heads == {"encoder": encoder, "decoder": decoder}
    assert all(gradient.abs().max() > 0 for gradient in gradients(one, inputs)[1].values())


@pytest.mark.parametrize("size", [2, 6, 11])
@pytest.mark.parametrize("method", [PREFIX, MLP, "mam(length=5, rank=4, mlp=6)"])
def test_t5s_heads_need_not_have_the_width_divided_by_their_number(method: str, size: int) -> None:
    one, inputs = fresh("t5", d_kv=size)
    assert size * one.config.num_heads != one.config.d_model
    attachment = unipetl.attach(one, method)
    randomize(attachment.tensors(), spread=0.3)
    assert all(gradient.abs().max() > 0 for gradient in gradients(one, inputs)[1].values())


@pytest.mark.parametrize("family", ["bert", "bart", "llama", "t5_gated"])
def test_gradients_are_the_slope_of_the_loss(family: str) -> None:
    """Against a central difference along a random direction, through every kind of change at once."""
    one, inputs = fresh(family)
    tensors = unipetl.attach(
        one, "mam(length=3, rank=4, mlp=5) + lora(rank=2) + ia3() + houlsby(rank=2, activation=tanh)"
    ).tensors()
    randomize(tensors, spread=0.3)
    _, got = gradients(one, inputs)
    parameters = {name: parameter for name, parameter in one.named_parameters() if parameter.requires_grad}
    generator = torch.Generator().manual_seed(2)
    direction = {
        name: torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        for name, parameter in parameters.items()
    }
    slope = sum(float((got[name] * direction[name]).sum()) for name in got)
    losses = []
    with torch.no_grad():
        for step in (1e-6, -2e-6):
            for name, parameter in parameters.items():
                parameter.add_(step * direction[name])
            losses.append(float(one(**inputs).loss))
    assert abs(slope) > 1e-2
    # Rotary and T5 norms compute in float32, which limits a difference quotient.
    assert abs((losses[0] - losses[1]) / 2e-6 - slope) < (1e-6 if family in ("bert", "bart") else 0.5) * abs(slope)
