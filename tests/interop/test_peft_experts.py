"""LoRA of experts' parameters without PEFT: folders made by hand compute what the format says; the rest is refused."""

from __future__ import annotations

import copy

import pytest
import torch

import unipetl
from equivalence.test_expert_oracles import PLACES, call_of, lora_at, model_of
from interop.test_peft_format import P, draw, folder
from unipetl.errors import InteropError
from unipetl.interop import peft
from unipetl.testing.compare import close, differ, outputs, scatter

KINDS = ("Mixtral", "GptOss", "Qwen2Moe")
CASES = {
    "all": lora_at(),
    "gate alone": lora_at(names=("ffn.gate",)),
    "two experts": lora_at((1, 3), rank=2),
    "several ranks": unipetl.Method(modifications=[*lora_at(names=("ffn.up",), rank=1).modifications,
                                                   *lora_at(names=("ffn.gate", "ffn.down"), rank=4).modifications]),
    "one layer": unipetl.Method(modifications=[{
        "representation": {"name": "ffn.down", "experts": True, "layers": [1]}, "form": {"low_rank": {"rank": 2}},
        "composition": {"add": {"scale": 0.7}}}]),
    "learned scales": unipetl.Method(modifications=[{
        "representation": {"name": name, "experts": True}, "form": {"low_rank": {"rank": 2}},
        "composition": {"add": {"scale": "learned"}}} for name in PLACES]),
    "everywhere": unipetl.parse("lora(rank=2, at=all, scale=0.3)"),
}  # fmt: skip
E, R = 4, 3
GATE_UP, DOWN = "mlp.experts.gate_up_proj", "mlp.experts.down_proj"


@pytest.fixture(autouse=True)
def _products_in_float64(monkeypatch):
    from transformers.integrations import moe

    monkeypatch.setattr(moe, "_can_use_grouped_mm", lambda *_: False)


def by_hand(model, *, old=False):
    """Tensors of a folder, and the model with s B_e A_e added to every expert's matrix by hand."""
    changed, tensors = copy.deepcopy(model), {}
    for layer in range(2):
        experts = changed.get_submodule(f"model.layers.{layer}.mlp.experts")
        for depth, name in enumerate(("down_proj", "gate_up_proj")):
            weight = experts.get_parameter(name)
            inner, outer = weight.shape[1:] if experts.is_transposed else reversed(weight.shape[1:])
            swapped = old and not experts.is_transposed
            read, made = (outer, inner) if swapped else (inner, outer)
            a, b = draw(E * R, read, seed=7 * layer + depth), draw(made, R * E, seed=9 * layer + depth)
            start = f"{P}model.layers.{layer}.mlp.experts" + ".base_layer" * depth
            tensors |= {f"{start}.lora_A.weight": a, f"{start}.lora_B.weight": b}
            with torch.no_grad():
                for expert in range(E):
                    matrix = b[:, expert::E] @ a[expert * R : (expert + 1) * R]  # (made, read)
                    weight[expert] += 0.5 * (matrix.T if experts.is_transposed or swapped else matrix)
    return tensors, changed


def settings(**more):
    return {"peft_type": "LORA", "r": R, "lora_alpha": 1.5, "target_modules": [], "peft_version": "0.21.2",
            "target_parameters": [DOWN, GATE_UP], **more}  # fmt: skip


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_lora_of_parameters_is_its_equation(kind, old, tmp_path):
    model, call = model_of(kind), call_of()
    tensors, changed = by_hand(model, old=old)
    wanted, bare = outputs(changed, call), outputs(model, call)
    differ(wanted, bare, "the LoRA", 1e-2)
    folder(tmp_path, settings(), tensors)
    attachment = peft.load(model, tmp_path)
    close(outputs(model, call), wanted, "a folder", 1e-6)
    assert {one.representation.name for one in attachment.method.modifications} == set(PLACES)


@pytest.mark.parametrize(("version", "old"), [("0.21.0", False), ("0.19.0", False), ("0.18.1", True), (None, True)])
def test_where_shapes_do_not_tell_the_order_the_version_does(version, old, tmp_path):
    model = model_of("Mixtral", intermediate_size=24)  # the matrices of down_proj are square
    tensors, changed = by_hand(model, old=old)
    tensors = {name: value for name, value in tensors.items() if "base_layer" not in name}
    fresh = model_of("Mixtral", intermediate_size=24)
    for layer in range(2):  # down_proj alone
        original = fresh.get_submodule(f"model.layers.{layer}.mlp.experts").gate_up_proj
        changed.get_submodule(f"model.layers.{layer}.mlp.experts").gate_up_proj = original
    more = {} if version is None else {"peft_version": version}
    config = {key: value for key, value in settings().items() if key != "peft_version"}
    folder(tmp_path, {**config, "target_parameters": [DOWN], **more}, tensors)
    peft.load(model, tmp_path)
    close(outputs(model, call_of()), outputs(changed, call_of()), "square matrices", 1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CASES)
def test_exported_and_imported_is_the_same(kind, name, tmp_path):
    model, call = model_of(kind), call_of()
    base = copy.deepcopy(model)
    scatter(unipetl.attach(model, CASES[name], train_head=False))
    wanted = outputs(model, call)
    peft.export(model, tmp_path)
    attachment = peft.load(base, tmp_path)
    close(outputs(base, call), wanted, "exported and imported", 1e-6)
    peft.export(base, tmp_path / "again")
    first, second = (peft.files.read(path).tensors for path in (tmp_path, tmp_path / "again"))
    assert first.keys() == second.keys()
    assert attachment.plan.parameters > 0


def change(tensors, ending, made):
    (key,) = [key for key in tensors if key.endswith(f"layers.0.mlp.experts.{ending}")]
    tensors[key] = made(tensors[key])
    return tensors


@pytest.mark.parametrize(
    ("config", "spoil", "message"),
    [
        ({"target_parameters": [DOWN]}, None, "tensors for 2 parameters.* name 1"),
        ({"target_parameters": [DOWN, GATE_UP, "mlp.experts.up"]}, None, "has no 'mlp.experts.up'"),
        ({"target_parameters": [DOWN, "mlp.gate.weight"]}, None, "no experts' matrices"),
        ({"target_parameters": "down_proj"}, None, "which PEFT does not write there"),
        ({}, lambda t: {k: v for k, v in t.items() if "base_layer" not in k}, "tensors for 1 parameters.* name 2"),
        ({}, lambda t: change(t, "lora_A.weight", lambda v: v[:-1]), "have shapes|has shapes"),
        ({}, lambda t: change(t, "lora_A.weight", lambda v: v[:, :-1].clone()), "maps 9 to 24 features"),
        ({"r": 2}, None, "has rank 3, and the config says 2"),
    ],
)
def test_what_does_not_fit_is_refused(config, spoil, message, tmp_path):
    model = model_of("Mixtral")
    tensors, _ = by_hand(model)
    folder(tmp_path, settings(**config), tensors if spoil is None else spoil(tensors))
    with pytest.raises(InteropError, match=message):
        peft.load(model, tmp_path)
    assert unipetl.attachments(model) == ()


@pytest.mark.parametrize(
    ("method", "uniform", "message"),
    [
        (lora_at(dropout=0.1), False, "no dropout"),
        (lora_at(), True, "engines that serve"),
        (unipetl.Method(modifications=[{"representation": {"name": "ffn.down", "experts": True},
                                        "form": {"bottleneck": {"rank": 2}}, "insertion": "parallel"}]),
         False, "LoRA of their matrices alone"),
        (unipetl.Method(modifications=[*lora_at().modifications,
                                       *unipetl.parse("lora(rank=2, dropout=0.1)").modifications]),
         False, "dropout at"),
    ],
)  # fmt: skip
def test_what_the_format_cannot_say_is_refused(method, uniform, message, tmp_path):
    model = model_of("Mixtral")
    unipetl.attach(model, method)
    with pytest.raises(InteropError, match=message):
        peft.export(model, tmp_path, uniform=uniform)


def test_biases_of_the_same_module_are_refused(tmp_path):
    model = model_of("GptOss")
    unipetl.attach(model, unipetl.Method(modifications=lora_at().modifications, train=("bias",)))
    with pytest.raises(InteropError, match="trained beside a LoRA of its module's other parameters"):
        peft.export(model, tmp_path)


def test_planted_experts_in_another_order(tmp_path):
    model, call = model_of("Mixtral"), call_of()
    tensors, changed = by_hand(model)
    wanted = outputs(changed, call)
    for name in tensors:
        if name.endswith("lora_B.weight"):  # expert after expert, as A is
            tensors[name] = tensors[name].view(-1, R, E).transpose(1, 2).flatten(1).contiguous()
    folder(tmp_path, settings(), tensors)
    peft.load(model, tmp_path)
    differ(outputs(model, call), wanted, "experts in another order", 1e-2)
