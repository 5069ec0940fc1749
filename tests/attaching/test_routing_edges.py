"""Rows that cannot be routed are refused with the reason, and a block leaves nothing behind."""

from __future__ import annotations

import copy
import threading

import pytest
import torch
import transformers

import unipetl
from unipetl.errors import AttachError, FoldError
from unipetl.testing import batch, build, randomize
from unipetl.testing.compare import outputs, same, scatter
from unipetl.testing.laws import attach_all, routes_rows_alone

SMALL = {
    "vocab_size": 50, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 20,
    "max_position_embeddings": 40,
}  # fmt: skip


def other(name, config, **settings):
    torch.manual_seed(0)
    model = getattr(transformers, name)(getattr(transformers, config)(**settings))
    randomize(model)
    return model.double().eval()


def words(rows):
    return {"input_ids": torch.randint(5, 49, (rows, 6), generator=torch.Generator().manual_seed(0))}


@pytest.fixture
def model():
    model = build("bert", dtype=torch.float64)
    attach_all(model, ["lora(rank=2)", "bitfit", "prefix_tuning(length=2)"], train_head=False)
    return model


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["n0", "n7"], "unknown attachment 'n7'"),
        ("n0", "one entry for each row"),
        ([], "one entry for each row"),
        ([["n0", "n0"], None], "in row 0 an attachment stands twice"),
    ],
)
def test_names_that_are_none(model, names, message):
    with pytest.raises(AttachError, match=message):
        unipetl.routed(model, names)


def test_a_batch_of_another_size_is_no_beam(model):
    with unipetl.routed(model, ["n0", None]):
        for rows in (1, 3, 4):
            with pytest.raises(AttachError, match=f"2 rows were named, and the batch has {rows}"):
                model(**batch(model, rows=rows, labels=False))
        outputs(model, batch(model, rows=2, labels=False))


def test_generate_with_another_batch():
    model = build("gpt2")
    attach_all(model, ["lora(rank=2)"])
    with unipetl.routed(model, ["n0", None]), pytest.raises(AttachError, match="the batch has 4"):
        model.generate(input_ids=torch.full((4, 3), 7), max_new_tokens=2)
    assert "generate" not in vars(model)


def test_a_row_that_trains_one_parameter_twice():
    model = build("bert", dtype=torch.float64)
    attach_all(model, ["bitfit", "bitfit"])
    with pytest.raises(AttachError, match="both train"), unipetl.routed(model, [["n0", "n1"]]):
        pass
    outputs(model, batch(model))


def test_nothing_is_attached_or_switched_inside(model):
    with unipetl.routed(model, ["n0", None]):
        for work in (
            lambda: unipetl.activate(model, "n1"),
            lambda: unipetl.attach(model, "ia3()", name="more"),
            lambda: unipetl.detach(model, "n0"),
        ):
            with pytest.raises(AttachError, match="rows are routed"):
                work()
        with pytest.raises(FoldError, match="rows are routed"):
            unipetl.fold(model)


def test_blocks_in_blocks_and_a_route_entered_again(model):
    call = batch(model, rows=2, labels=False)
    unipetl.activate(model, "n1")
    active = outputs(model, call)
    outer = unipetl.routed(model, ["n0", "n2"])
    with outer:
        wanted = outputs(model, call)
        with unipetl.routed(model, [None, None]):
            inner = outputs(model, call)
        same(outputs(model, call), wanted, "after the inner block")
    same(outputs(model, call), active, "after the outer block")
    unipetl.activate(model, None)
    same(outputs(model, call), inner, "rows of the bare model")
    with pytest.raises(ZeroDivisionError), outer:
        raise ZeroDivisionError
    same(outputs(model, call), inner, "after a block that failed")
    with outer:
        same(outputs(model, call), wanted, "the same route once more")


def test_what_was_stacked_follows_the_values(model):
    call = batch(model, rows=2, labels=False)
    scatter(unipetl.attach(model, "lora(rank=2)", name="n3", train_head=False), seed=3)
    with unipetl.routed(model, ["n0", "n3"]):
        first = outputs(model, call)
        with torch.no_grad():
            for one in unipetl.attachments(model):
                if one.name == "n3":
                    for tensor in one.tensors().values():
                        tensor.add_(0.5)
        second = outputs(model, call)
    same(second[0], first[0], "the other row")
    assert not torch.allclose(second[1], first[1])


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable. is deprecated:FutureWarning")
@pytest.mark.parametrize("reentrant", [True, False])
def test_backward_under_checkpoints_belongs_inside(reentrant):
    model = build("llama").train()
    names = attach_all(model, ["lora(rank=2)", "lora(rank=2)"])
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    with unipetl.routed(model, names):
        loss = model(**batch(model), use_cache=False).loss
    with pytest.raises(AttachError, match="inside the `with routed"):
        loss.backward()
    with unipetl.routed(model, names):
        model(**batch(model), use_cache=False).loss.backward()
    assert all(one.grad is not None for each in unipetl.attachments(model) for one in each.tensors().values())


KEYS = ["prefix_tuning(length=2, mlp=None)", "prefix_tuning(length=3, mlp=None)", "multi_head_parallel_adapter(rank=2)"]
DEBERTA = {
    **SMALL,
    "relative_attention": True,
    "pos_att_type": ["c2p", "p2c"],
    "share_att_key": True,
    "position_buckets": 4,
}


@pytest.mark.parametrize(
    ("name", "config", "settings"),
    [
        ("MPNetModel", "MPNetConfig", SMALL),
        ("BloomModel", "BloomConfig", {"vocab_size": 50, "hidden_size": 24, "n_layer": 2, "n_head": 3}),
        ("DebertaV2Model", "DebertaV2Config", DEBERTA),
        ("GPTNeoXModel", "GPTNeoXConfig", SMALL),
    ],
)
def test_other_models_with_softmaxes_of_their_own_and_fused_projections(name, config, settings):
    model = other(name, config, **settings)
    names = attach_all(model, KEYS if name == "DebertaV2Model" else [*KEYS, "lora(rank=2)"])
    rows = [None, *names, names[0]]
    routes_rows_alone(model, rows, words(len(rows)), atol=1e-6)


def test_a_projection_of_positions_is_no_row_s():
    model = other("DebertaV2Model", "DebertaV2Config", **DEBERTA)
    names = attach_all(model, ["lora(rank=2)", "lora(rank=2)"])
    with pytest.raises(AttachError, match="query_proj' sees no rows of the batch there"), unipetl.routed(model, names):
        pass
    outputs(model, words(2))


def test_a_table_of_positions_that_is_trained_is_no_row_s():
    model = other("MPNetModel", "MPNetConfig", **SMALL)
    names = attach_all(model, ["bitfit"])
    with pytest.raises(AttachError, match="it gives no rows"), unipetl.routed(model, [None, names[0]]):
        pass


def test_rows_that_do_not_come_first():
    sizes = {"vocab_size": 50, "d_model": 24, "n_layer": 2, "n_head": 3, "d_inner": 20}
    model = other("XLNetModel", "XLNetConfig", **sizes)
    names = attach_all(model, ["lora(rank=2, at=[ffn.up])", "lora(rank=2, at=[ffn.up])"])
    with pytest.raises(AttachError, match="sees no rows"), unipetl.routed(model, names):
        pass


@pytest.mark.parametrize("family", ["bert", "gpt2", "bart", "t5"])
def test_a_copy_made_inside_the_block_is_as_the_model_is_outside(family):
    model = build(family)
    method = "prompt_tuning(length=2) + bitfit" if family == "t5" else "mam(length=2, rank=2, mlp=None) + bitfit"
    names = ("first", "second")
    for number, text in enumerate((method, "lora(rank=2)")):
        attachment = unipetl.attach(model, text, name=names[number], train_head=False)
        with torch.no_grad():
            for value in attachment.tensors().values():
                value.add_(torch.randn(value.shape, generator=torch.Generator().manual_seed(number)) * 0.1)
        unipetl.activate(model, None)
    unipetl.activate(model, "second")
    call = batch(model)
    with torch.no_grad():
        outside = model(**call).logits
        with unipetl.routed(model, ["first", None]):
            inside = model(**call).logits
            with unipetl.routed(model, [None, "first"]):
                deeper = model(**call).logits
                copied = copy.deepcopy(model)
                assert torch.equal(model(**call).logits, deeper), "the model's rows are routed on"
            holder = copy.deepcopy(torch.nn.ModuleList([model]))
            assert torch.equal(model(**call).logits, inside)
            assert not torch.equal(inside, outside)
            for one in (copied, holder[0]):
                assert torch.equal(one(**call).logits, outside)
                assert "__deepcopy__" not in one.__dict__
        assert torch.equal(model(**call).logits, outside)
        unipetl.activate(copied, "first")
        unipetl.activate(model, "first")
        assert torch.equal(copied(**call).logits, model(**call).logits)
        with unipetl.routed(copied, ["first", None]):
            assert torch.equal(copied(**call).logits, inside)
    assert "__deepcopy__" not in model.__dict__


@pytest.mark.parametrize("part", ["bert", "bert.encoder", "bert.encoder.layer.1", "bert.encoder.layer.1.output.dense"])
def test_a_copy_of_a_part_made_inside_the_block_is_as_the_part_is_outside(part):
    model = build("bert")
    attach_all(model, ["mam(length=2, rank=2, mlp=None) + lora(rank=2, at=all)", "lora(rank=2)"])
    unipetl.activate(model, "n1")
    call = batch(model)
    inside = model.get_submodule(part)
    with torch.no_grad():
        outside = outputs(model, call)
        with unipetl.routed(model, ["n0", "n1"]):
            routed = outputs(model, call)
            copied = copy.deepcopy(inside)
            same(outputs(model, call), routed, "the model's rows are routed on")
        assert not any("__deepcopy__" in one.__dict__ for one in (*model.modules(), *copied.modules()))
        model.set_submodule(part, copied)
        same(outputs(model, call), outside, "with the copy in the part's place")


def test_a_copy_that_fails_leaves_the_rows_routed():
    model = build("bert")
    unipetl.attach(model, "lora(rank=2)", name="first")
    with unipetl.routed(model, ["first", None]):
        model.lock = threading.Lock()  # which cannot be copied
        with pytest.raises(TypeError):
            copy.deepcopy(model)
        with pytest.raises(AttachError, match="rows are routed"):
            unipetl.activate(model, None)
        del model.lock
        copy.deepcopy(model)
    unipetl.activate(model, None)
