"""Rows with values of their own for the model's own parameters: attentions, tables of positions, heads."""

from __future__ import annotations

import pytest
import torch

from unipetl.testing import batch, build
from unipetl.testing.laws import attach_all, routes_rows_alone


@pytest.mark.parametrize(("name", "rows"), [("t5", 3), ("gpt2", 3), ("bart", 4), ("bart", 5)])
def test_every_weight(name, rows):
    """BART's decoder is given its positions as one list, here of five, which is no list of rows."""
    model = build(name, dtype=torch.float64)
    attach_all(model, ["full", "full", "lora(rank=2)"])
    call = batch(model, rows=rows, labels=False)
    routes_rows_alone(model, ["n0", "n1", "n2", None, "n1"][:rows], call, atol=1e-9)
