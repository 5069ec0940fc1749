"""Copies share the base's weights, and what one trains is its own."""

from __future__ import annotations

import torch

from benchmarks import references
from benchmarks.copies import own, share, trained
from benchmarks.shapes import SHAPES, batch, build, prompt, shape

TINY = shape("roberta", layers=1, width=8, heads=2, key_heads=2, hidden=16, vocabulary=50, rows=2, tokens=4)
SMALL = {"layers": 1, "width": 8, "heads": 2, "key_heads": 2, "hidden": 16, "vocabulary": 50, "rows": 2, "tokens": 4}


def test_a_copy_reads_the_same_storage_and_is_frozen():
    base = build(TINY, "cpu")
    copy = share(base)
    assert [one.data_ptr() for one in copy.parameters()] == [one.data_ptr() for one in base.parameters()]
    assert not trained(copy)
    assert all(one.requires_grad for one in base.parameters())


def test_tied_parameters_stay_tied():
    base = build(shape("bart", **SMALL), "cpu")
    copy = share(base)
    assert len(list(copy.parameters())) == len(list(base.parameters()))
    assert copy.lm_head.weight is copy.model.shared.weight


def test_training_a_copy_leaves_the_base_alone():
    base = build(TINY, "cpu")
    before = [one.clone() for one in base.parameters()]
    copy = share(base).requires_grad_(True)
    own(copy, base)
    copy(**batch(TINY, "cpu")).loss.backward()
    torch.optim.SGD(copy.parameters(), lr=1.0).step()
    assert all(torch.equal(old, new) for old, new in zip(before, base.parameters(), strict=True))
    assert any(not torch.equal(old, new) for old, new in zip(before, copy.parameters(), strict=True))


def test_the_floor_computes_what_the_model_computes_and_trains_one_vector():
    base = build(TINY, "cpu")
    floor = share(base)
    references.add_floor(floor)
    inputs = batch(TINY, "cpu")
    assert [one.shape for one in trained(floor)] == [(8,)]
    assert torch.equal(floor.eval()(**inputs).logits, base(**inputs).logits)
    floor(**inputs).loss.backward()
    assert trained(floor)[0].grad.abs().sum() > 0


def test_the_floor_of_an_encoder_decoder_model_reaches_both_stacks():
    of = shape("bart", **SMALL, targets=3)
    floor = share(build(of, "cpu"))
    references.add_floor(floor)
    reached = []
    for stack in (floor.model.encoder, floor.model.decoder):
        stack.layers[0].register_full_backward_hook(lambda module, *_: reached.append(module))
    floor(**batch(of, "cpu")).loss.backward()
    assert len(reached) == 2


def test_every_shape_builds_small_and_takes_its_batch():
    for name, one in SHAPES.items():
        of = shape(name, **SMALL, targets=3, prompt=2, new_tokens=2, dtype="float32")
        model = build(of, "cpu")
        assert model(**batch(of, "cpu")).loss.isfinite(), name
        if one.generates:
            written = model.generate(**prompt(of, "cpu"), max_new_tokens=2, min_new_tokens=2)
            assert written.shape[0] == 2
