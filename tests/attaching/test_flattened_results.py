"""A sub-layer that gives all tokens in one axis: Llama 4's mixture of experts."""

from __future__ import annotations

import pytest
import torch
import transformers

import unipetl
from unipetl.testing import randomize
from unipetl.testing.compare import outputs, scatter

CALL = {"input_ids": torch.tensor([[7, 8, 9, 10, 11], [12, 13, 14, 15, 16]])}


@pytest.fixture
def model():
    config = transformers.Llama4TextConfig(
        vocab_size=50, hidden_size=16, intermediate_size=20, intermediate_size_mlp=20, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, head_dim=8, num_local_experts=2, num_experts_per_tok=1,
        interleave_moe_layer_step=1, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    made = transformers.Llama4ForCausalLM(config)
    randomize(made)
    return made.double().eval()


def test_a_parallel_adapter_joins_token_by_token(model):
    bare = outputs(model, CALL)
    attachment = unipetl.attach(model, "parallel_adapter(rank=3)")
    scatter(attachment)
    assert not torch.allclose(outputs(model, CALL), bare, atol=1e-3)
    seen = {}
    layer = model.model.layers[0].feed_forward
    layer.register_forward_hook(lambda module, args, output: seen.update(x=args[0], y=output[0]))
    outputs(model, CALL)
    key = next(one.key for one in attachment.plan.placements if one.site.layer == 0)
    values = {n.rsplit("/", 1)[-1]: v.detach() for n, v in attachment.tensors().items() if n.startswith(key)}
    unipetl.detach(model)
    x, changed = seen["x"].reshape(-1, 16), seen["y"]
    outputs(model, CALL)
    inner = torch.relu(x @ values["down"].T + values["down_bias"])
    wanted = seen["y"] + inner @ values["up"].T + values["up_bias"]
    assert changed.dim() == 2
    assert torch.allclose(changed, wanted, atol=1e-9)
