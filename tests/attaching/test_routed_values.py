"""Rows with values of their own for the model's own parameters: attentions, tables of positions, heads."""

from __future__ import annotations

import pytest
import torch
import transformers

import unipetl
from unipetl.attaching import layout
from unipetl.errors import AttachError
from unipetl.testing import batch, build, randomize
from unipetl.testing.laws import attach_all, routes_rows_alone


@pytest.mark.parametrize(("name", "rows"), [("t5", 3), ("gpt2", 3), ("bart", 4), ("bart", 5)])
def test_every_weight(name, rows):
    """BART's decoder is given its positions as one list, here of five, which is no list of rows."""
    model = build(name, dtype=torch.float64)
    attach_all(model, ["full", "full", "lora(rank=2)"])
    call = batch(model, rows=rows, labels=False)
    routes_rows_alone(model, ["n0", "n1", "n2", None, "n1"][:rows], call, atol=1e-9)


def test_an_attention_with_parameters_and_a_softmax_of_its_own():
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 20}
    torch.manual_seed(0)
    model = transformers.DebertaModel(transformers.DebertaConfig(vocab_size=50, **sizes)).double().eval()
    randomize(model)
    attach_all(model, ["bitfit", "prefix_tuning(length=2, mlp=none)"])
    call = {"input_ids": torch.randint(5, 49, (2, 6), generator=torch.Generator().manual_seed(0))}
    routes_rows_alone(model, [["n0", "n1"], ["n0", "n1"]], call, atol=1e-9)


def test_values_of_rows_need_a_call_that_shows_rows(monkeypatch):
    model = transformers.ViTModel(
        transformers.ViTConfig(
            hidden_size=24, num_hidden_layers=1, num_attention_heads=3, intermediate_size=20, image_size=8, patch_size=4
        )
    )
    attach_all(model, ["bitfit", "bitfit"])
    monkeypatch.setattr(layout, "_inputs", lambda model: [])
    with pytest.raises(AttachError, match="not known which row"), unipetl.routed(model, ["n0", "n1"]):
        pass
