"""A change without gradients joins in the frozen module's own result where nobody else reads that, else beside it."""

import pytest
import torch

import unipetl
from unipetl.testing import batch, build
from unipetl.testing.compare import outputs, scatter


def at_the_end(form, **axes):
    return unipetl.Method(modifications=[{"representation": "ffn.down", "form": form, **axes}])


METHODS = (
    "lora(rank=2)",
    "lora(rank=2, at=all) + parallel_adapter(rank=3, at=both)",
    "adapter(rank=3, at=both)",
    at_the_end({"low_rank": {"rank": 2}}, insertion="sequential", composition={"add": {"scale": "learned"}}),
    at_the_end({"bottleneck": {"rank": 2, "bias": False}}, composition={"add": {"scale": 2}}),
    at_the_end({"bottleneck": {"rank": 2, "layer_norm": "out"}}, composition={"add": {"scale": "learned"}}),
)


def attached(method, dtype=torch.float64):
    model = build("bert", dtype=dtype)
    scatter(unipetl.attach(model, method))
    return model, batch(model)


@pytest.fixture
def spared(monkeypatch):
    """How often a result was given up to the change."""
    from unipetl.attaching import ports

    found, real = [], ports.is_spare

    def counted(*arguments):
        found.append(real(*arguments))
        return found[-1]

    monkeypatch.setattr(ports, "is_spare", counted)
    return found


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_same_bits_as_with_gradients(method, dtype, spared):
    model, call = attached(method, dtype)
    with torch.enable_grad():
        expected = model(**call).logits
    assert not any(spared)
    assert torch.equal(outputs(model, call), expected)
    assert any(spared)


def test_what_others_saw_of_the_result_stays(spared):
    model = build("bert", dtype=torch.float64)
    query = next(one for name, one in model.named_modules() if name.endswith("layer.0.attention.self.query"))
    seen = []
    scatter(unipetl.attach(model, "lora(rank=2)"))
    query.register_forward_hook(lambda module, args, output: seen.append((output, output.clone())), prepend=True)
    outputs(model, batch(model))
    ((output, before),) = seen
    assert torch.equal(output, before)
    assert spared.count(False) == 1


def test_planted_loss_of_what_others_saw(monkeypatch):
    monkeypatch.setattr("unipetl.attaching.ports.is_spare", lambda *_: True)
    with pytest.raises(AssertionError):
        test_what_others_saw_of_the_result_stays([False])


def test_changes_that_read_the_result_read_it_before_any_joins():
    one, other = (
        {"representation": "ffn.down", "form": {"low_rank": {"rank": rank}}, "insertion": "sequential"}
        for rank in (2, 3)
    )
    model, call = attached(unipetl.Method(modifications=[one, other]))
    with torch.enable_grad():
        expected = model(**call).logits
    assert torch.equal(outputs(model, call), expected)


def test_a_map_over_values_of_the_change_alone():
    """vmap: the frozen module's result is one for all of them, and none may be written to."""
    model = build("bert", dtype=torch.float64, attn_implementation="eager")
    scatter(unipetl.attach(model, "lora(rank=2)"))
    call = batch(model, labels=False)
    own = {name: one.detach() for name, one in model.named_parameters() if one.requires_grad}
    many = {name: torch.stack([one, 2 * one]) for name, one in own.items()}
    with torch.no_grad():
        both = torch.func.vmap(lambda some: torch.func.functional_call(model, some, kwargs=call).logits)(many)
        assert torch.allclose(both[0], model(**call).logits, rtol=1e-9, atol=1e-9)
