"""The identities that docs/folding.md states and folding does not use."""

from __future__ import annotations

import pytest
import torch

import unipetl
from unipetl.testing import batch, build
from unipetl.testing.compare import close, outputs, scatter


@pytest.mark.parametrize("grown", [False, True], ids=["identity", "planted"])
def test_a_multi_head_parallel_adapter_is_a_parallel_bottleneck(grown):
    model, same = (build("bert", dtype=torch.float64) for _ in range(2))
    heads = scatter(unipetl.attach(model, "multi_head_parallel_adapter(rank=3, scale=2)", train_head=False)).tensors()
    tensors = unipetl.attach(same, "parallel_adapter(rank=12, at=attention, scale=2)", train_head=False).tensors()
    with torch.no_grad():
        for layer, block in enumerate(same.bert.encoder.layer):
            place = f"encoder.{layer}.self_attention"
            attention, size = block.attention, 4
            for head in range(4):
                part, units = slice(head * size, (head + 1) * size), slice(head * 3, (head + 1) * 3)
                key = heads[f"{place}.heads/parallel_head_attention/key"][:, part] * size**-0.5
                value = heads[f"{place}.heads/parallel_head_attention/value"][:, part]
                change = f"{place}/parallel_bottleneck"
                tensors[f"{change}/down"][units] = key @ attention.self.query.weight[part]
                tensors[f"{change}/down_bias"][units] = key @ attention.self.query.bias[part]
                tensors[f"{change}/up"][:, units] = attention.output.dense.weight[:, part] @ value.T
                tensors[f"{change}/up_bias"].zero_()
        if grown:
            tensors["encoder.0.self_attention/parallel_bottleneck/down_bias"].add_(0.1)
    if grown:
        with pytest.raises(unipetl.errors.CheckError):
            close(outputs(same, batch(model)), outputs(model, batch(model)), "planted")
    else:
        close(outputs(same, batch(model)), outputs(model, batch(model)), "head by head")
