"""Rows routed where they are looked up by number, and refused where tokens of all rows meet."""

from __future__ import annotations

import pytest
import torch
import transformers

import unipetl
from unipetl.testing import build, randomize
from unipetl.testing.compare import close, scatter


def with_two(model, method):
    for seed, name in enumerate(("a", "b")):
        scatter(unipetl.attach(model, method, name=name, seed=seed))
        unipetl.activate(model, None)
    return model


def alone(model, names, ids):
    rows = []
    for row, name in enumerate(names):
        unipetl.activate(model, name)
        rows.append(model(input_ids=ids[row : row + 1]).logits)
    unipetl.activate(model, None)
    return torch.cat(rows)


def gpt_neox():
    """A model without a table."""
    config = transformers.GPTNeoXConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24
    )
    randomize(model := transformers.GPTNeoXForCausalLM(config))
    return model


@pytest.mark.parametrize("make", [lambda: build("llama"), lambda: build("gpt2"), gpt_neox])
@pytest.mark.parametrize("names", [["a", None, "b"], ["b", "b", "a"]])
def test_every_row_looks_up_its_own_tokens(make, names):
    model = with_two(make().double().eval(), "lora(rank=2, at=embedding)")
    ids = torch.randint(5, 40, (3, 6), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = alone(model, names, ids)
        with unipetl.routed(model, names):
            close(model(input_ids=ids).logits, wanted, "the routed rows", 1e-12)
        assert not torch.allclose(model(input_ids=ids).logits[2], wanted[2])


def test_rows_inside_experts_are_refused():
    config = transformers.MixtralConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=24, num_local_experts=4, num_experts_per_tok=2,
    )  # fmt: skip
    model = transformers.MixtralForCausalLM(config).double().eval()
    randomize(model)
    model.set_experts_implementation("eager")
    with_two(model, "lora(rank=2, at=ffn)")
    with (
        pytest.raises(unipetl.errors.AttachError, match="it is not known which row"),
        unipetl.routed(model, ["a", "b"]),
    ):
        pass


def test_every_image_has_its_own_patches():
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=4, intermediate_size=24, image_size=8, patch_size=4
    )
    model = transformers.ViTModel(config).double().eval()
    randomize(model)
    with_two(model, "lora(rank=2, at=embedding)")
    pixels = torch.randn(3, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = []
        for row, name in enumerate(["b", None, "a"]):
            unipetl.activate(model, name)
            wanted.append(model(pixels[row : row + 1]).last_hidden_state)
        unipetl.activate(model, None)
        with unipetl.routed(model, ["b", None, "a"]):
            close(model(pixels).last_hidden_state, torch.cat(wanted), "the routed images", 1e-12)
