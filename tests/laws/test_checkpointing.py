"""Law: gradient checkpointing, reentrant or not, changes neither the loss nor a gradient."""

from __future__ import annotations

import pytest
import torch

import unipetl
from laws.support import EACH_LAYER, EXAMPLES, broken, explore, family_named, fresh, refused
from unipetl.attaching.entry import EntryHook, VectorsHook
from unipetl.testing import SMALL, batch
from unipetl.testing.compare import close, loss_of, require, scatter

METHODS = [
    "prefix_tuning",
    "mam",
    "lora",
    "parallel_adapter",
    "prompt_tuning",
    "multi_head_parallel_adapter, official",
    "pfeiffer",
]


def learned(model, call):
    """The loss and every gradient of one step in training mode."""
    torch.manual_seed(0)
    model.zero_grad()
    loss = loss_of(model, call)
    loss.backward()
    (attachment,) = unipetl.attachments(model)
    return loss.detach(), {name: None if t.grad is None else t.grad.clone() for name, t in attachment.tensors().items()}


def switch(model, settings):
    """Switch checkpointing on, or off with None, under the name this version of transformers has for it."""
    word = "activation" if hasattr(model, "activation_checkpointing_enable") else "gradient"
    if settings is None:
        getattr(model, f"{word}_checkpointing_disable")()
    else:
        getattr(model, f"{word}_checkpointing_enable")(settings)


def law(model, method):
    """Law: loss and gradients are the same with and without checkpointing, for both kinds of it."""
    model.config.use_cache = False
    model.train()
    call = batch(model, padding="right")
    scatter(unipetl.attach(model, method))
    wanted_loss, wanted = learned(model, call)
    for reentrant in (False, True):
        kind = "reentrant" if reentrant else "not reentrant"
        switch(model, {"use_reentrant": reentrant})
        loss, found = learned(model, call)
        switch(model, None)
        close(loss, wanted_loss, f"the loss with checkpointing, {kind}", 1e-12)
        for name, gradient in wanted.items():
            require(found[name] is not None, f"{name} gets no gradient with checkpointing, {kind}.")
            close(found[name], gradient, f"the gradient of {name}, {kind}", 1e-10)


@EACH_LAYER
@EXAMPLES
def test_random_methods(family, examples):
    explore("checkpointing", family, examples, law)


@EACH_LAYER
@pytest.mark.parametrize("name", METHODS)
def test_named_methods(family, name):
    model = fresh(family)
    if not refused(model, SMALL[name]):
        law(model, SMALL[name])


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_planted_input_without_gradient(monkeypatch):
    monkeypatch.setattr(EntryHook, "__call__", lambda *_: None)
    monkeypatch.setattr(VectorsHook, "__call__", lambda *_: None)  # audio enters a model without an embedding
    with pytest.raises((unipetl.errors.CheckError, RuntimeError), match=r"no gradient with|does not require grad"):
        law(fresh(family_named("whisper")), SMALL["lora"])


def test_planted_recomputation_that_differs(monkeypatch):
    from unipetl.attaching.ports import Change

    calls = []

    def planted(self, h, x, **_):
        calls.append(0)
        return h + self.delta(x) * (1 + 1e-6 * len(calls))

    monkeypatch.setattr(Change, "added", planted)
    with broken("with checkpointing|the gradient of"):
        law(fresh(family_named("gpt2")), SMALL["lora"])


def test_stages_that_are_run_under_checkpoints_whole():
    import transformers

    config = transformers.Swinv2Config(
        image_size=16, patch_size=4, embed_dim=8, depths=[2], num_heads=[2], window_size=2, hidden_size=8
    )
    model = transformers.Swinv2Model(config).train().double()
    attachment = unipetl.attach(model, "scaled_parallel_adapter(rank=2)")
    scatter(attachment)
    switch(model, {"use_reentrant": True})
    model(pixel_values=torch.ones(1, 3, 16, 16, dtype=torch.float64)).last_hidden_state.sum().backward()
    assert all(tensor.grad is not None for tensor in attachment.tensors().values())
