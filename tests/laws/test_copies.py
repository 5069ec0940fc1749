"""Law: a model with attachments can be copied and pickled; a copy computes the same and is independent."""

from __future__ import annotations

import copy
import io
import pickle  # noqa: TID251

import pytest
import torch

import unipetl
from laws.support import EACH_LAYER, EXAMPLES, broken, explore, family_named, fresh, refused
from unipetl.testing import SMALL, batch
from unipetl.testing.compare import differ, outputs, require, same, scatter

METHODS = ["prompt_tuning", "mam", "multi_head_parallel_adapter, official", "bitfit", "pfeiffer, official"]


def pickled(model):
    return pickle.loads(pickle.dumps(model))  # noqa: S301


def through_torch(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)  # noqa: TID251


WAYS = {"deepcopy": copy.deepcopy, "pickle": pickled, "torch": through_torch}


def law(model, method, way=copy.deepcopy):
    """Law: the copy gives the same, can be changed without the original and detached like it."""
    call, bare = batch(model), outputs(model, batch(model))
    attachment = scatter(unipetl.attach(model, method))
    wanted = outputs(model, call)
    twin = way(model)
    require(len(unipetl.attachments(twin)) == 1, "the copy has no attachment")
    same(outputs(twin, call), wanted, "the copy's result")
    theirs = unipetl.attachments(twin)[0]
    require(theirs.model is twin, "the copy's handle points to another model")
    scatter(theirs, seed=5)
    same(outputs(model, call), wanted, "the original after the copy changed")
    if attachment.plan.placements:
        differ(outputs(twin, call), wanted, "the copy after it changed")
    unipetl.detach(model)
    same(outputs(model, call), bare, "the original after detaching")
    unipetl.detach(twin)
    same(outputs(twin, call), bare, "the copy after detaching")


@EACH_LAYER
@EXAMPLES
def test_random_methods(family, examples):
    explore("copies", family, examples, law)


@EACH_LAYER
@pytest.mark.parametrize("name", METHODS)
def test_named_methods(family, name):
    model = fresh(family)
    if not refused(model, SMALL[name]):
        law(model, SMALL[name], pickled)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["bart", "qwen3"])
def test_every_way(name, way):
    law(fresh(family_named(name)), SMALL["mam"], WAYS[way])


def test_a_copied_model_trains():
    model = fresh(family_named("bart"))
    unipetl.attach(model, SMALL["mam"])
    twin = copy.deepcopy(model)
    twin(**batch(twin)).loss.backward()
    require(all(tensor.grad is not None for tensor in unipetl.attachments(twin)[0].tensors().values()), "no gradient")
    require(all(tensor.grad is None for tensor in unipetl.attachments(model)[0].tensors().values()), "a stray gradient")


def test_planted_hook_that_holds_the_original():
    def way(model):
        twin = copy.deepcopy(model)
        for (_, ours), (_, theirs) in zip(model.named_modules(), twin.named_modules(), strict=True):
            theirs._forward_hooks = ours._forward_hooks
        return twin

    with broken("the copy after it changed"):
        law(fresh(family_named("gpt2")), SMALL["lora"], way)


def test_planted_copy_that_shares_its_values():
    def way(model):
        shared = {id(p): p for name, p in model.named_parameters() if "unipetl" in name}
        return copy.deepcopy(model, shared)

    with broken("the original after the copy changed"):
        law(fresh(family_named("gpt2")), SMALL["lora"], way)


def test_planted_copy_without_its_state():
    def way(model):
        twin = copy.deepcopy(model)
        del twin.__dict__["_unipetl_state"]
        return twin

    with broken("no attachment"):
        law(fresh(family_named("gpt2")), SMALL["lora"], way)
