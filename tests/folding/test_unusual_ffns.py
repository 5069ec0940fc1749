"""Folding knows whose FFN is whose, and which FFNs new units would disturb."""

from __future__ import annotations

import contextlib

import pytest
import torch
import transformers

import unipetl
from unipetl.errors import FoldError
from unipetl.testing import randomize
from unipetl.testing.calls import call_reaching
from unipetl.testing.compare import outputs, scatter
from unipetl.testing.coverage import build_type


def test_stacks_in_one_module_have_ffns_of_their_own():
    """LXMERT has three stacks in its encoder, whose layers count from 0 each."""
    model = build_type("lxmert")
    architecture = unipetl.plan("parallel_adapter(rank=2)", model).architecture
    call, _ = call_reaching(model, architecture)
    attachment = scatter(unipetl.attach(model, "parallel_adapter(rank=2)"))
    owners = [one.site.value.module for one in attachment.plan.placements if one.site.representation == "ffn"]
    assert len(set(owners)) == len(owners) == 6
    wanted = outputs(model, call)
    with contextlib.suppress(FoldError):
        unipetl.fold(model, partial=True)
    assert torch.allclose(outputs(model, call), wanted, atol=1e-9)


def test_no_units_are_added_where_each_is_compared_with_all():
    config = transformers.Gemma3nTextConfig(
        vocab_size=50, vocab_size_per_layer_input=50, hidden_size=16, hidden_size_per_layer_input=4,
        intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=8,
        laurel_rank=4,
        num_kv_shared_layers=0, activation_sparsity_pattern=[0.5, 0.5], pad_token_id=0, bos_token_id=1, eos_token_id=2,
        layer_types=["sliding_attention", "full_attention"],
    )  # fmt: skip
    model = transformers.Gemma3nForCausalLM(config)
    randomize(model)
    model.double().eval()
    scatter(unipetl.attach(model, "parallel_adapter(rank=2, activation=gelu_tanh)"))
    with pytest.raises(FoldError, match="above the mean of all"):
        unipetl.fold(model)


def test_a_norm_over_the_units_refuses_new_ones_in_any_shape():
    """ConvNeXt V2's response norm has its weights as (1, 1, 1, units)."""
    model = build_type("convnextv2")
    attachment = scatter(unipetl.attach(model, "scaled_parallel_adapter(rank=2)"))
    assert attachment.plan.placements
    with pytest.raises(FoldError, match="stands between"):
        unipetl.fold(model)
