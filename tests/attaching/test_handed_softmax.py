"""Learned keys where queries are rotated before a softmax of the model's own, or handed to torch's fused attention."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import transformers

import unipetl
from unipetl.testing import randomize
from unipetl.testing.compare import outputs, scatter

SMALL = {
    "vocab_size": 50, "hidden_size": 32, "n_embd": 32, "num_hidden_layers": 2, "n_layer": 2, "num_attention_heads": 4,
    "n_head": 4, "rotary_dim": 4, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
MODELS = {
    "GPT-J": ("GPTJ", {}, {}),
    "Falcon": ("Falcon", {"multi_query": True}, {}),
    "Falcon, grouped": ("Falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}, {}),
    "Falcon, eager": ("Falcon", {"multi_query": True}, {"attn_implementation": "eager"}),
}
CALL = {"input_ids": torch.tensor([[7, 8, 9, 10, 11], [12, 13, 14, 15, 16]])}


def build(name):
    prefix, settings, options = MODELS[name]
    config = getattr(transformers, f"{prefix}Config")(**{**SMALL, **settings})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(transformers, f"{prefix}ForCausalLM")._from_config(config, **options)
    randomize(model)
    return model.double().eval()


def rotated(model, layer=0):
    """An oracle's queries, keys and values: what the model's own rotation gives, watched from outside."""
    seen = []
    fused, product = torch.nn.functional.scaled_dot_product_attention, torch.matmul

    def watched_fused(query, key, value, **rest):
        seen.append((query, key, value))
        return fused(query, key, value, **rest)

    def watched_product(first, second):
        seen.append((first, second))
        return product(first, second)

    torch.nn.functional.scaled_dot_product_attention, torch.matmul = watched_fused, watched_product
    try:
        with torch.no_grad():
            model(**CALL)
    finally:
        torch.nn.functional.scaled_dot_product_attention, torch.matmul = fused, product
    if len(seen[0]) == 3:
        return seen[layer]
    pairs = [pair for pair in seen if pair[0].dim() == 4]
    (query, key), (_, value) = pairs[2 * layer : 2 * layer + 2]
    return query, key.transpose(-1, -2), value


def first_heads(model):
    """Return what the first layer's output projection reads."""
    found = []
    path = "transformer.h.0.attn.out_proj" if "GPTJ" in type(model).__name__ else "transformer.h.0.self_attention.dense"
    handle = model.get_submodule(path).register_forward_pre_hook(lambda module, args: found.append(args[0]))
    outputs(model, CALL)
    handle.remove()
    return found[0].view(2, 5, 4, 8).transpose(1, 2)


@pytest.mark.parametrize("name", ["GPT-J", "Falcon", "Falcon, grouped"])
def test_one_softmax_over_learned_and_own_keys(name):
    model = build(name)
    query, key, value = rotated(model)
    attachment = scatter(unipetl.attach(model, "prefix_tuning(length=2, mlp=none)"))
    changed = first_heads(model)
    first = next(one for one in attachment.plan.placements if one.site.layer == 0)
    tensors = {n.rsplit("/", 1)[-1]: t.detach() for n, t in attachment.tensors().items() if n.startswith(first.key)}
    learned = [tensors[part].view(2, -1, 8).transpose(0, 1) for part in ("key", "value")]
    heads = 4 // learned[0].shape[0]
    learned = [one.repeat_interleave(heads, dim=0).expand(2, -1, -1, -1) for one in learned]
    key, value = (one.expand(2, 4, -1, -1) for one in (key, value))
    query, key = query.double(), key.double()  # GPT-J multiplies in float32
    scores = query @ torch.cat([learned[0], key], dim=2).transpose(-1, -2) / math.sqrt(8)
    hidden = torch.ones(5, 5, dtype=torch.bool).triu(1)
    scores[..., 2:] = scores[..., 2:].masked_fill(hidden, float("-inf"))
    wanted = scores.softmax(-1) @ torch.cat([learned[1], value], dim=2)
    assert torch.allclose(changed, wanted, atol=1e-6 if name == "GPT-J" else 1e-9)


@pytest.mark.parametrize("method", ["prefix_tuning(length=2, mlp=none)", "multi_head_parallel_adapter(rank=4)"])
def test_the_fused_attention_and_the_eager_one_compute_the_same(method):
    fused, eager = build("Falcon"), build("Falcon, eager")
    eager.load_state_dict(fused.state_dict())
    for model in (fused, eager):
        scatter(unipetl.attach(model, method))
    assert torch.allclose(outputs(fused, CALL), outputs(eager, CALL), atol=1e-9)
    assert torch.equal(outputs(copy.deepcopy(fused), CALL), outputs(fused, CALL))
    unipetl.detach(fused)
    assert not torch.allclose(outputs(fused, CALL), outputs(eager, CALL), atol=1e-3)


def test_an_attention_that_multiplies_nothing_is_no_silent_loss():
    model = build("Falcon")
    scatter(unipetl.attach(model, "multi_head_parallel_adapter(rank=4)"))
    core = model.transformer.h[0].self_attention
    core.forward.real = lambda hidden, *_, **__: (core.dense(hidden), None)
    with pytest.raises(unipetl.errors.AttachError, match="computed none"):
        model(**CALL)
