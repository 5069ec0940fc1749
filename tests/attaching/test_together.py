"""What an MLP makes for all layers is computed once in a pass with gradients, and its gradients are those of before."""

import copy
import pickle  # noqa: TID251
import warnings

import pytest
import torch

import unipetl
from unipetl.forms.head_attention import HeadReparametrization
from unipetl.forms.together import Together
from unipetl.testing import batch, build
from unipetl.testing.compare import scatter

PREFIX = "prefix_tuning(length=3, mlp=4)"


@pytest.fixture
def counted(monkeypatch):
    """The rows of the last map that were computed."""
    calls, real = [], HeadReparametrization._computed

    def computed(self, rows):
        calls.append(rows)
        return real(self, rows)

    monkeypatch.setattr(HeadReparametrization, "_computed", computed)
    return calls


def attached(**settings):
    model = build("gpt2", "causal_lm", dtype=torch.float64, **settings)
    scatter(unipetl.attach(model, PREFIX))
    return model, batch(model)


def gradients(model, call):
    model.zero_grad(set_to_none=True)
    model(**call).loss.backward()
    return {name: one.grad.clone() for name, one in model.named_parameters() if one.requires_grad}


def alone(monkeypatch):
    monkeypatch.setattr(Together, "take", lambda *_: None)


def test_one_product_for_all_layers_with_the_same_gradients(counted, monkeypatch):
    model, call = attached()
    together = gradients(model, call)
    assert not counted
    alone(monkeypatch)
    expected = gradients(model, call)
    assert len(counted) == model.config.num_hidden_layers
    assert together.keys() == expected.keys()
    assert all(torch.allclose(together[name], one, rtol=1e-12, atol=1e-14) for name, one in expected.items())


@pytest.mark.parametrize("reentrant", [False, True])
def test_under_checkpoints(reentrant, counted):
    model, call = attached()
    expected = gradients(model, call)
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the name is being changed
        model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    counted.clear()
    found = gradients(model, call)
    assert all(torch.allclose(found[name], one, rtol=1e-10, atol=1e-12) for name, one in expected.items())
    parts = [rows for rows in counted if rows != slice(None)]
    assert len(parts) == (0 if reentrant else 2 * model.config.num_hidden_layers)


@pytest.mark.parametrize("reentrant", [False, True])
def test_the_whole_model_under_a_checkpoint(reentrant):
    model, call = attached()
    expected = gradients(model, call)
    model.zero_grad(set_to_none=True)
    vectors = model.get_input_embeddings()(call["input_ids"]).detach().requires_grad_()
    given = {"attention_mask": call["attention_mask"], "labels": call["labels"]}
    run = lambda inputs: model(inputs_embeds=inputs, **given).loss  # noqa: E731
    torch.utils.checkpoint.checkpoint(run, vectors, use_reentrant=reentrant).backward()
    found = {name: one.grad for name, one in model.named_parameters() if one.requires_grad}
    assert all(torch.allclose(found[name], one, rtol=1e-10, atol=1e-12) for name, one in expected.items())


def test_two_passes_before_one_backward():
    model, call = attached()
    expected = gradients(model, call)
    model.zero_grad(set_to_none=True)
    first, second = model(**call).loss, model(**call).loss
    (first + second).backward()
    for name, one in model.named_parameters():
        if one.requires_grad:
            assert torch.allclose(one.grad, 2 * expected[name], rtol=1e-10, atol=1e-12)


def test_a_pass_without_gradients_between_a_pass_and_its_backward():
    model, call = attached()
    model.train()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.gradient_checkpointing_enable({"use_reentrant": False})
    loss = model(**call).loss
    with torch.no_grad():
        model(**call)
    loss.backward()


def test_parts_of_one_pass_go_backward_one_by_one():
    model, call = attached()
    model(**call)
    block, hidden = model.transformer.h[1], torch.randn(2, 5, model.config.n_embd, dtype=torch.float64)
    for _ in range(2):
        output = block(hidden)
        (output[0] if isinstance(output, tuple) else output).sum().backward()


def test_values_changed_before_backward_are_refused():
    model, call = attached()
    loss = model(**call).loss
    table = next(one for name, one in model.named_parameters() if name.endswith("embedding") and one.requires_grad)
    with torch.no_grad():
        table.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_second_derivatives():
    model, call = attached(attn_implementation="eager")
    table = next(one for name, one in model.named_parameters() if name.endswith("embedding") and one.requires_grad)
    (first,) = torch.autograd.grad(model(**call).loss, table, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), table)
    assert bool(second.ne(0).any())


def test_a_block_by_itself_never_sees_values_of_before():
    model, call = attached()
    model(**call)  # no backward: nothing of this pass is gone
    table = next(one for name, one in model.named_parameters() if name.endswith("embedding") and one.requires_grad)
    block, hidden = model.transformer.h[1], torch.randn(2, 5, model.config.n_embd, dtype=torch.float64)
    with torch.no_grad():
        before = block(hidden)[0]
        table.add_(1.0)
    after = block(hidden)[0]
    assert not torch.allclose(before, after)


def test_copies_and_pickles_of_a_model_after_a_pass():
    model, call = attached()
    model(**call).loss.backward()
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # noqa: S301
        assert torch.equal(other(**call).logits, model(**call).logits)


def test_planted_part_of_another_layer(monkeypatch):
    model, call = attached()
    real = Together.take
    monkeypatch.setattr(Together, "take", lambda self, index, *others: real(self, 1 - index, *others))
    found = gradients(model, call)
    alone(monkeypatch)
    expected = gradients(model, call)
    assert not all(torch.allclose(found[name], one) for name, one in expected.items())
