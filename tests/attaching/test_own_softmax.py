"""Learned keys and values where a model computes its softmax itself: DeBERTa with its position terms, MPNet, BLOOM."""

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
    "vocab_size": 50, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 20,
    "max_position_embeddings": 40, "pad_token_id": 0,
}  # fmt: skip
RELATIVE = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_buckets": 4}
MODELS = {
    "DeBERTa-v3's settings": ("DebertaV2", {**RELATIVE, "share_att_key": True, "norm_rel_ebd": "layer_norm"}),
    "DeBERTa-v2, keys of their own": ("DebertaV2", {**RELATIVE, "share_att_key": False}),
    "DeBERTa": ("Deberta", {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}),
    "MPNet": ("MPNet", {}),
    "BLOOM": ("Bloom", {"n_head": 3, "n_layer": 2}),
}
#: The factor on the content's q kᵀ: DeBERTa divides by the number of terms that it adds up.
FACTOR = {"DeBERTa-v3's settings": 3, "DeBERTa-v2, keys of their own": 3, "DeBERTa": 3, "MPNet": 1, "BLOOM": 1}
CALL = {"input_ids": torch.tensor([[7, 8, 9, 10, 11], [12, 13, 14, 15, 16]])}


def build(name):
    prefix, settings = MODELS[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(transformers, f"{prefix}Model")(
            getattr(transformers, f"{prefix}Config")(**{**SMALL, **settings})
        )
    randomize(model)
    return model.double().eval()


def by_hand(model, key, value, queries, factor, layer):
    """An oracle: the gate of the paper's equation 7, from the scores the model takes its softmax of."""
    scores = []
    real = torch.nn.functional.softmax

    def seen(tensor, *args, **kwargs):
        scores.append(tensor)
        return real(tensor, *args, **kwargs)

    torch.nn.functional.softmax = seen
    try:
        model(**CALL)
    finally:
        torch.nn.functional.softmax = real
    own = scores[layer].reshape(2, 3, 5, 5).exp()
    learned = torch.einsum("bhnd,hld->bhnl", queries, key).div(math.sqrt(8 * factor)).exp()
    total = own.sum(-1, keepdim=True) + learned.sum(-1, keepdim=True)
    return own.sum(-1, keepdim=True) / total, (learned / total) @ value


def first_layer(model, attachment):
    """Return the heads' results with the changes and without them, the queries, and the learned keys and values."""
    first = next(one for one in attachment.plan.placements if one.site.layer == 0)
    tensors = {n.rsplit("/", 1)[-1]: t.detach() for n, t in attachment.tensors().items() if n.startswith(first.key)}
    key, value = (tensors[part].view(-1, 3, 8).transpose(0, 1) for part in ("key", "value"))
    query_module = model.get_submodule(first.site.query.module)
    output_module = model.get_submodule(first.site.value.module)
    queries, heads = [], []
    query_module.register_forward_hook(lambda module, args, output: queries.append(output))
    output_module.register_forward_pre_hook(lambda module, args: heads.append(args[0]))
    with torch.no_grad():
        model(**CALL)
        unipetl.detach(model)
        changed = heads.pop(0)
        queries.clear()
        heads.clear()
        model(**CALL)
    columns = first.site.query.columns
    query = queries[0] if columns is None else columns.of(queries[0])
    query, changed, bare = (one.view(2, 5, 3, 8).transpose(1, 2) for one in (query, changed, heads[0]))
    return changed, bare, query, key, value


@pytest.mark.parametrize("name", MODELS)
def test_the_gate_of_the_paper(name):
    model = build(name)
    attachment = scatter(unipetl.attach(model, "prefix_tuning(length=2, mlp=none)"))
    changed, bare, query, key, value = first_layer(model, attachment)
    with torch.no_grad():
        keep, learned = by_hand(model, key, value, query, FACTOR[name], layer=0)
    wanted = keep * bare + learned
    assert torch.allclose(changed, wanted, atol=1e-6 if name == "BLOOM" else 1e-9)  # BLOOM's softmax is in float32
    assert not torch.allclose(changed, bare, atol=1e-3)


@pytest.mark.parametrize("name", MODELS)
def test_the_multi_head_adapter_adds_relu_attention(name):
    model = build(name)
    attachment = scatter(unipetl.attach(model, "multi_head_parallel_adapter(rank=6)"))
    result = outputs(model, CALL)
    assert torch.equal(outputs(copy.deepcopy(model), CALL), result)
    changed, bare, query, key, value = first_layer(model, attachment)
    logits = torch.einsum("bhnd,hld->bhnl", query, key) / math.sqrt(8 * FACTOR[name])
    wanted = bare + logits.relu() @ value
    assert torch.allclose(changed, wanted, atol=1e-9)
    assert not torch.allclose(changed, bare, atol=1e-3)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_the_factor_is_the_same_in_any_dtype(name, dtype):
    placements = unipetl.plan("prefix_tuning(length=2, mlp=none)", build(name).to(dtype)).placements
    assert {one.site.softmax for one in placements} == {1 / math.sqrt(FACTOR[name])}


def test_a_call_that_fails_leaves_no_softmax_widened():
    model = build("MPNet")
    bare = torch.nn.functional.softmax(torch.zeros(1, 1, 2, 2), dim=-1)
    scatter(unipetl.attach(model, "prefix_tuning(length=2, mlp=none)"))
    wanted = outputs(model, CALL)
    with pytest.raises((RuntimeError, IndexError, TypeError)):
        model(inputs_embeds=torch.zeros(1, 3, 24, dtype=torch.float64), attention_mask=torch.zeros(1, 9))
    assert torch.equal(torch.nn.functional.softmax(torch.zeros(1, 1, 2, 2), dim=-1), bare)
    assert torch.equal(outputs(model, CALL), wanted)


def test_an_interrupted_call_leaves_no_softmax_widened():
    model = build("MPNet")
    scatter(unipetl.attach(model, "prefix_tuning(length=2, mlp=none)"))
    wanted = outputs(model, CALL)

    def interrupt(*_):
        raise KeyboardInterrupt

    handle = model.encoder.layer[1].attention.attn.q.register_forward_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        model(**CALL)
    handle.remove()
    assert torch.equal(outputs(model, CALL), wanted)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("method", ["prefix_tuning(length=2, mlp=none)", "multi_head_parallel_adapter(rank=6)"])
def test_learned_keys_are_dropped_out_with_the_model_s_own(name, method):
    """Where every probability is dropped out nothing is left of any head, learned part or not."""
    model = build(name)
    scatter(unipetl.attach(model, method))
    model.eval()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    core = next(m for m in model.modules() if type(m).__name__.endswith(("SelfAttention", "BloomAttention")))
    (core.attention_dropout if name == "BLOOM" else core.dropout).p = 1.0
    heads = []
    output = {"BLOOM": "h.0.self_attention.dense", "MPNet": "encoder.layer.0.attention.attn.o"}
    module = model.get_submodule(output.get(name, "encoder.layer.0.attention.output.dense"))
    module.register_forward_pre_hook(lambda module, args: heads.append(args[0]))
    model.train()
    with torch.no_grad():
        model(**CALL)
        assert torch.count_nonzero(heads.pop()) == 0
        model.eval()(**CALL)
        assert torch.count_nonzero(heads.pop()) > 0


def test_an_attention_without_its_softmax_is_no_silent_loss():
    model = build("MPNet")
    scatter(unipetl.attach(model, "prefix_tuning(length=2, mlp=none)"))
    real = torch.nn.functional.softmax
    torch.nn.functional.softmax = lambda x, dim: (x - x.logsumexp(dim, keepdim=True)).exp()
    try:
        with pytest.raises(unipetl.errors.AttachError, match="computed none"):
            model(**CALL)
    finally:
        torch.nn.functional.softmax = real
    outputs(model, CALL)


def test_an_eager_implementation_of_the_interface_is_no_softmax_of_its_own():
    """It may be replaced at any time, and a prefix must act on."""
    config = transformers.OPTConfig(
        vocab_size=50, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, ffn_dim=20, word_embed_proj_dim=24,
        max_position_embeddings=40,
    )  # fmt: skip
    model = transformers.OPTForCausalLM._from_config(config, attn_implementation="eager")
    randomize(model)
    model.double().eval()
    attachment = unipetl.attach(model, "prefix_tuning(length=2, mlp=none)")
    assert {one.site.softmax for one in attachment.plan.placements} == {None}
    scatter(attachment)
    eager = outputs(model, CALL)
    model.set_attn_implementation("sdpa")
    assert torch.allclose(outputs(model, CALL), eager, atol=1e-5)  # the eager softmax is in float32


def test_attentions_whose_positions_have_no_origin_are_refused():
    from unipetl.testing.coverage import build_type

    with pytest.raises(unipetl.errors.PlanError, match="without transformers' attention interface"):
        unipetl.plan("prefix_tuning", build_type("mpt"))
