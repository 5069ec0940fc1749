"""Law: switching off gives the bare model exactly, and stacking computes what it says."""

from __future__ import annotations

import pytest
import torch

import unipetl
from laws.support import EACH_LAYER, EXAMPLES, broken, explore, family_named, fresh, refused
from unipetl.attaching import attachment as attaching
from unipetl.attaching import detached
from unipetl.testing import SMALL, batch
from unipetl.testing.compare import close, differ, outputs, same, scatter
from unipetl.testing.laws import attach_all, keeps_flags

METHODS = ["full", "bitfit", "prompt_tuning", "mam", "multi_head_parallel_adapter, official"]


def switches_off(model, method):
    """Law: without active attachments the result is the bare model's, bit for bit, and back on it is the same again."""
    call, bare = batch(model, padding="right"), outputs(model, batch(model, padding="right"))
    attachment = scatter(unipetl.attach(model, method))
    with torch.no_grad():
        for name, tensor in attachment.tensors().items():
            if name.startswith("model/"):
                tensor.add_(torch.randn_like(tensor) * 0.1)
    wanted = outputs(model, call)
    differ(wanted, bare, "the attachment")
    unipetl.activate(model, None)
    same(outputs(model, call), bare, "the result with nothing active")
    unipetl.activate(model, "default")
    same(outputs(model, call), wanted, "the result when active again")
    with detached(model):
        same(outputs(model, call), bare, "the result inside detached()")
    same(outputs(model, call), wanted, "the result after detached()")


@EACH_LAYER
@EXAMPLES
def test_random_methods(family, examples):
    explore("activation", family, examples, switches_off)


@EACH_LAYER
@pytest.mark.parametrize("name", METHODS)
def test_named_methods(family, name):
    model = fresh(family)
    if not refused(model, SMALL[name]):
        switches_off(model, SMALL[name])


def stacks(model, twin, first, second):
    """Law: two attachments at different places compute what one attachment of both methods computes."""
    for number, method in enumerate((first, second)):
        scatter(unipetl.attach(model, method, name=f"n{number}", train_head=False))
    both = unipetl.attach(twin, f"{first} + {second}", train_head=False)
    ours = {name: value for one in unipetl.attachments(model) for name, value in one.tensors().items()}
    with torch.no_grad():
        for name, tensor in both.tensors().items():
            tensor.copy_(ours[name])
    close(outputs(model, batch(model)), outputs(twin, batch(twin)), "two stacked against both in one", 1e-12)


@EACH_LAYER
@pytest.mark.parametrize(
    ("first", "second"),
    [
        (SMALL["prefix_tuning"], SMALL["scaled_parallel_adapter"]),
        (SMALL["lora"], "houlsby(rank=2)"),
        ("multi_head_parallel_adapter(rank=2)", "ia3"),
    ],
)
def test_stacked_at_different_places(family, first, second):
    stacks(fresh(family), fresh(family), first, second)


def adds_up(model, twin, text, join):
    """Law: two changes of one kind at the same places are one change with both parts side by side."""
    for name, size in (("a", 2), ("b", 3)):
        scatter(unipetl.attach(model, text.format(size), name=name, train_head=False))
    whole = unipetl.attach(twin, text.format(5), train_head=False)
    a, b = (one.tensors() for one in unipetl.attachments(model))
    with torch.no_grad():
        for name, tensor in whole.tensors().items():
            tensor.copy_(torch.cat([a[name], b[name]], dim=join(name)))
    close(
        outputs(model, batch(model)),
        outputs(twin, batch(twin)),
        f"two stacked against one of both sizes: {text}",
        1e-11,
    )


SUMS = [
    ("lora(rank={}, at=all)", lambda name: int(name.endswith("/up"))),
    ("prefix_tuning(length={}, mlp=None)", lambda name: 0),
    ("multi_head_parallel_adapter(rank={})", lambda name: 0),
]


@EACH_LAYER
@pytest.mark.parametrize(("text", "join"), SUMS, ids=["lora", "prefix", "heads"])
def test_stacked_at_the_same_places(family, text, join):
    adds_up(fresh(family), fresh(family), text, join)


@pytest.mark.parametrize("name", ["bert", "bart", "t5", "gpt2", "llama"])
def test_two_prompts_stand_side_by_side(name):
    family = family_named(name)
    adds_up(fresh(family), fresh(family), "prompt_tuning(length={})", lambda name: 0)


@EACH_LAYER
@pytest.mark.parametrize(("first", "second"), [("pfeiffer", "pfeiffer"), ("parallel_adapter", "adapter")])
def test_the_order_of_stacking(family, first, second):
    model = fresh(family)
    scatter(unipetl.attach(model, f"{first}(rank=2)", name="a", train_head=False))
    scatter(unipetl.attach(model, f"{second}(rank=3)", name="b", train_head=False), seed=1)
    wanted = outputs(model, batch(model))
    assert [one.name for one in unipetl.attachments(model)] == ["a", "b"]
    unipetl.activate(model, ["b", "a"])
    differ(outputs(model, batch(model)), wanted, "sequential changes in the other order")
    unipetl.activate(model, ["a", "b"])
    same(outputs(model, batch(model)), wanted, "the first order again")
    unipetl.detach(model, "a")
    alone = fresh(family)
    scatter(unipetl.attach(alone, f"{second}(rank=3)", name="b", train_head=False), seed=1)
    same(outputs(model, batch(model)), outputs(alone, batch(alone)), "what is left after detaching one")


def test_planted_switch_that_leaves_the_trained_biases(monkeypatch):
    monkeypatch.setattr(attaching, "swap", lambda model, record: None)
    with broken("nothing active"):
        switches_off(fresh(family_named("bert")), SMALL["bitfit"])


def test_planted_switch_that_leaves_the_hooks(monkeypatch):
    real = attaching.activate

    def planted(model, names):
        with monkeypatch.context() as patch:
            patch.setattr(attaching, "install", lambda *_: None)
            real(model, names)

    monkeypatch.setattr(unipetl, "activate", planted, raising=False)
    with broken("nothing active"):
        switches_off(fresh(family_named("bert")), SMALL["lora"])


def test_planted_stack_that_computes_the_last_one_only(monkeypatch):
    real = attaching.install

    def planted(model, state):
        for record in list(state.records.values())[:-1]:
            record.active = False
        real(model, state)

    monkeypatch.setattr(attaching, "install", planted)
    for check in (
        lambda: stacks(fresh(family_named("bert")), fresh(family_named("bert")), SMALL["lora"], "ia3"),
        lambda: adds_up(fresh(family_named("bert")), fresh(family_named("bert")), *SUMS[1]),
    ):
        with broken("two stacked"):
            check()


def keeps_choices(model):
    wanted = [one for one in ("bitfit", "lora(rank=2)", "head_only") if not refused(model, one)]
    keeps_flags(model, attach_all(model, wanted))


@EACH_LAYER
def test_switching_keeps_what_the_user_froze_and_freed(family):
    keeps_choices(fresh(family))


def test_planted_switch_that_frees_what_it_puts_in_force(monkeypatch):
    real = attaching._switch

    def planted(model, record):
        real(model, record)
        for name in record.parked:
            model.get_parameter(name).requires_grad_(record.active)

    monkeypatch.setattr(attaching, "_switch", planted)
    with broken("requires_grad"):
        keeps_choices(fresh(family_named("bert")))
