"""Law: hidden states and attentions can be asked for; they have the base's shapes and are what really flows."""

from __future__ import annotations

import pytest
import torch

import unipetl
from laws.support import EACH_LAYER, EXAMPLES, broken, explore, family_named, fresh, refused
from unipetl.attaching import heads
from unipetl.attaching.prompts import ShortenResult
from unipetl.testing import SMALL, batch
from unipetl.testing.compare import close, outputs, require, scatter
from unipetl.testing.strategies import sites_of

METHODS = ["mam", "multi_head_parallel_adapter, official", "lora everywhere", "pfeiffer", "prompt_tuning"]
STATES = {
    "encoder": ("encoder_hidden_states", "hidden_states"),
    "decoder": ("decoder_hidden_states", "hidden_states"),
}


def everything(model, call):
    with torch.no_grad():
        return model(**call, output_hidden_states=True, output_attentions=True)


def shapes(output, *, attentions):
    return {
        key: [tuple(part.shape) for part in value]
        for key, value in output.items()
        if isinstance(value, tuple) and ("hidden_states" in key or (attentions and "attentions" in key))
    }


def law(model, method, *, attentions=True):
    """Law: the shapes are the base's, the result is that of a plain call, and states are the blocks' inputs."""
    call = batch(model, labels=False)
    call.pop("encoder_hidden_states", None)
    wanted = shapes(everything(model, call), attentions=attentions)  # the recorders' hooks are on the model from here
    require(bool(wanted), "the base returns neither hidden states nor attentions.")
    scatter(unipetl.attach(model, method))
    seen = {}
    hooks = [
        model.get_submodule(site.owner).register_forward_pre_hook(_record(seen, site), with_kwargs=True)
        for site in sites_of(model)
        if site.representation == "block"
    ]
    output = everything(model, call)
    for hook in hooks:
        hook.remove()
    found = shapes(output, attentions=attentions)
    if any(one.representation.name == "input" for one in unipetl.parse(method).modifications):
        found.pop("encoder_hidden_states", None)  # the decoder reads the prompt's among them
        wanted.pop("encoder_hidden_states", None)
    require(found == wanted, f"shapes {found} instead of {wanted}.")
    plain = outputs(model, call)
    own = output["logits"] if "logits" in output else output["last_hidden_state"]
    close(own, plain, "the result when everything is asked for", 1e-12)
    for (stack, layer), entered in seen.items():
        states = next(output[key] for key in STATES[stack] if output.get(key) is not None)
        tokens = states[layer].shape[1]
        close(
            states[layer], entered[:, -tokens:], f"the {stack}'s hidden state {layer} against its block's input", 1e-12
        )


def _record(seen, site):
    def hook(module, args, kwargs):
        seen[site.stack.stack, site.layer] = (args[0] if args else kwargs["hidden_states"]).detach()

    return hook


@EACH_LAYER
@EXAMPLES
def test_random_methods(family, examples):
    def check(model, method):
        prompts = any(one.representation.name == "input" for one in method.modifications)
        law(fresh(family, implementation="eager"), method, attentions=not prompts)

    explore("outputs", family, examples, check)


@EACH_LAYER
@pytest.mark.parametrize("name", METHODS)
def test_named_methods(family, name):
    model = fresh(family, implementation="eager")
    if not refused(model, SMALL[name]):
        law(model, SMALL[name], attentions=name != "prompt_tuning")


def test_a_prompt_is_seen_in_the_attentions():
    model = fresh(family_named("bert"), implementation="eager")
    unipetl.attach(model, "prompt_tuning(length=3)")
    assert everything(model, batch(model))["attentions"][0].shape[-2:] == (10, 10)


def test_planted_attentions_on_the_prefix(monkeypatch):
    monkeypatch.setattr(heads, "_length", lambda item: 2 if monkeypatch else 0)
    real = heads.attention

    def planted(module, query, key, value, mask, **kwargs):
        output, weights = real(module, query, key, value, mask, **kwargs)
        return output, None if weights is None else torch.nn.functional.pad(weights, (2, 0))

    monkeypatch.setattr(heads, "attention", planted)
    with broken("shapes"):
        law(fresh(family_named("bert"), implementation="eager"), SMALL["mam"])
    monkeypatch.undo()
    heads.view_of(fresh(family_named("bert")).config)  # registers the real function again


def test_planted_prompt_left_in_the_states(monkeypatch):
    monkeypatch.setattr(ShortenResult, "_cut", lambda self, part: part)
    with broken("shapes"):
        law(fresh(family_named("gpt2"), implementation="eager"), SMALL["prompt_tuning"], attentions=False)


def test_planted_states_of_before_the_change(monkeypatch):
    model = fresh(family_named("gpt2"), implementation="eager")
    real = unipetl.attach

    def planted(changed, method):
        attachment = real(changed, method)
        first = changed.transformer.h[0]
        first.register_forward_hook(lambda module, args, output: output + 1e-6 if torch.is_tensor(output) else output)
        first._forward_hooks.move_to_end(next(iter(first._forward_hooks)))
        changed.transformer.h[1].register_forward_pre_hook(lambda module, args: (args[0] + 1e-6, *args[1:]))
        return attachment

    monkeypatch.setattr(unipetl, "attach", planted, raising=False)
    with broken("hidden state 1"):
        law(model, SMALL["pfeiffer"])
