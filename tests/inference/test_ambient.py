"""What is switched on around a call changes nothing in what is found."""

from __future__ import annotations

import contextlib

import pytest
import torch
import transformers

import unipetl
from unipetl.inference import infer, infer_from_shapes
from unipetl.testing import randomize

SMALL = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 20}


@contextlib.contextmanager
def default_device(name):
    before = torch.get_default_device()
    torch.set_default_device(name)
    try:
        yield
    finally:
        torch.set_default_device(before)


AROUND = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "device": lambda: torch.device("meta"),
    "default device": lambda: default_device("meta"),
}


def build():
    model = transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**SMALL))
    randomize(model)
    return model.eval()


@pytest.mark.parametrize("around", AROUND.values(), ids=AROUND)
def test_the_same_places_are_found_in_any_surroundings(around):
    model = build()
    with torch.device("meta"):
        bare = transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**SMALL))
    wanted = infer(model)
    assert infer_from_shapes(bare) == wanted
    with around():
        assert infer(model) == wanted
        assert infer_from_shapes(bare) == wanted
        assert torch.is_inference_mode_enabled() == (around is torch.inference_mode)
        assert torch.is_grad_enabled() == (around not in (torch.no_grad, torch.inference_mode))
    assert torch.is_grad_enabled()


def test_attaching_without_gradients_needs_no_more_than_attaching():
    model = build()
    with torch.no_grad():
        attachment = unipetl.attach(model, "lora(rank=2)")
    assert all(tensor.requires_grad for tensor in attachment.tensors().values())
