"""PEFT's files without PEFT: folders made by hand compute what the format says, and what is wrong is refused."""

from __future__ import annotations

import copy
import json

import pytest
import safetensors.torch
import torch

import unipetl
from unipetl.errors import InteropError
from unipetl.interop import peft
from unipetl.testing import FAMILIES, batch, build
from unipetl.testing.compare import close, outputs, same, scatter
from unipetl.testing.laws import Snapshot

P = "base_model.model."


def folder(path, config, tensors):
    path.mkdir(exist_ok=True)
    (path / "adapter_config.json").write_text(json.dumps(config))
    safetensors.torch.save_file(tensors, path / "adapter_model.safetensors", metadata={"format": "pt"})
    return path


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def lora_of(model, paths, rank=2):
    tensors = {}
    for place, path in enumerate(paths):
        module = model.get_submodule(path)
        inner, outer = (module.nx, module.nf) if hasattr(module, "nf") else (module.in_features, module.out_features)
        tensors[f"{P}{path}.lora_A.weight"] = draw(rank, inner, seed=2 * place)
        tensors[f"{P}{path}.lora_B.weight"] = draw(outer, rank, seed=2 * place + 1)
    return tensors


def merged(model, tensors, scale):
    """The model with s B A added to the weights, by hand."""
    merged = copy.deepcopy(model)
    with torch.no_grad():
        for key in tensors:
            if key.endswith("lora_A.weight"):
                path = key.removeprefix(P).removesuffix(".lora_A.weight")
                change = scale(path) * tensors[key.replace("lora_A", "lora_B")] @ tensors[key]
                module = merged.get_submodule(path)
                module.weight += change.T if hasattr(module, "nf") else change
    return merged


BART_Q = [
    f"model.{stack}.layers.{i}.self_attn.q_proj" for stack, n in (("encoder", 2), ("decoder", 3)) for i in range(n)
]
BART_Q += [f"model.decoder.layers.{i}.encoder_attn.q_proj" for i in range(3)]


@pytest.mark.parametrize(
    ("settings", "scale"),
    [
        ({}, lambda path: 8 / 2),
        ({"lora_alpha": 3}, lambda path: 3 / 2),
        ({"lora_alpha": 3, "use_rslora": True}, lambda path: 3 / 2**0.5),
        (
            {"alpha_pattern": {"encoder.layers.1.self_attn.q_proj": 5}},
            lambda path: (5 if "encoder.layers.1" in path else 8) / 2,
        ),
        ({"alpha_pattern": {r"decoder\..*": 1}}, lambda path: (1 if "decoder" in path else 8) / 2),
    ],
)
def test_a_lora_is_its_equation(settings, scale, tmp_path):
    model = build("bart", dtype=torch.float64)
    tensors = lora_of(model, BART_Q)
    wanted = outputs(merged(model, tensors, scale), batch(model))
    folder(tmp_path, {"peft_type": "LORA", "r": 2, "target_modules": ["q_proj"], **settings}, tensors)
    peft.load(model, tmp_path)
    close(outputs(model, batch(model)), wanted, "a LoRA folder")


def test_a_fused_and_transposed_projection(tmp_path):
    model = build("gpt2", dtype=torch.float64)
    paths = [f"transformer.h.{i}.{name}" for i in range(2) for name in ("attn.c_attn", "mlp.c_proj")]
    tensors = lora_of(model, paths)
    wanted = outputs(merged(model, tensors, lambda _: 4), batch(model))
    folder(tmp_path, {"peft_type": "LORA", "r": 2, "target_modules": ["c_attn", "mlp.c_proj"]}, tensors)
    attachment = peft.load(model, tmp_path)
    close(outputs(model, batch(model)), wanted, "a LoRA folder")
    assert {one.representation.name for one in attachment.method.modifications} == {
        "attention.query", "attention.key", "attention.value", "ffn.down",
    }  # fmt: skip


def test_the_smallest_config_and_a_regular_expression(tmp_path):
    model = build("bart", dtype=torch.float64)
    some = [path for path in BART_Q if "encoder_attn" in path]
    tensors = lora_of(model, some, rank=8)
    folder(tmp_path, {"peft_type": "LORA", "target_modules": r".*encoder_attn\.q_proj"}, tensors)
    method = peft.load(model, tmp_path).method
    assert [str(one.representation) for one in method.modifications] == ["attention.query [decoder cross]"]


@pytest.mark.parametrize("family", FAMILIES, ids=str)
@pytest.mark.parametrize(
    "method", ["lora(rank=2, at=all, scale=0.3)", "ia3", "lora(rank=3, scale=7) + lora(rank=1, at=ffn)"]
)
def test_exported_and_imported_is_the_same(family, method, tmp_path):
    model = build(family, dtype=torch.float64)
    base = copy.deepcopy(model)
    attachment = scatter(unipetl.attach(model, method, train_head=False))
    peft.export(model, tmp_path)
    again = peft.load(base, tmp_path)
    rotary = family.name in ("llama", "mistral", "qwen2", "qwen3")
    close(outputs(base, batch(base)), outputs(model, batch(model)), "out and in again", 1e-5 if rotary else 1e-9)
    if family.name != "gpt2":  # a fused projection's places come back with the ranks that reach them
        mine, theirs = attachment.tensors(), again.tensors()
        assert set(mine) == set(theirs)
        for name, value in mine.items():
            same(theirs[name], value, name)
    peft.export(base, tmp_path / "twice")
    first, second = (
        safetensors.torch.load_file(one / "adapter_model.safetensors") for one in (tmp_path, tmp_path / "twice")
    )
    assert set(first) == set(second)
    for name, value in first.items():
        assert torch.equal(second[name], value) or family.name == "gpt2"


@pytest.mark.parametrize("family", ["llama", "qwen3"])
@pytest.mark.parametrize("method", ["prefix_tuning(length=3, mlp=4)", "prompt_tuning(length=3)"])
def test_prefixes_and_prompts_come_back(family, method, tmp_path):
    model = build(family, dtype=torch.float64)
    base = copy.deepcopy(model)
    scatter(unipetl.attach(model, method))
    peft.export(model, tmp_path)
    peft.load(base, tmp_path)
    close(outputs(base, batch(base)), outputs(model, batch(model)), "out and in again", 1e-5)


@pytest.mark.parametrize(
    ("family", "method", "task"), [("roberta", "lora(rank=2)", "SEQ_CLS"), ("bert", "lora(rank=2) + bitfit", "SEQ_CLS")]
)
def test_heads_and_biases_come_back(family, method, task, tmp_path):
    model = build(family, dtype=torch.float64)
    base = copy.deepcopy(model)
    attachment = scatter(unipetl.attach(model, method))
    with torch.no_grad():
        for name, value in attachment.tensors().items():
            if name.startswith("model/"):
                value.add_(0.1)
    peft.export(model, tmp_path, base_model="somewhere")
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["task_type"] == task
    assert config["base_model_name_or_path"] == "somewhere"
    assert config["modules_to_save"] == ["classifier"]
    again = peft.load(base, tmp_path)
    close(outputs(base, batch(base)), outputs(model, batch(model)), "with a head")
    assert again.method.train == attachment.method.train


def test_a_head_that_another_attachment_trains_is_not_exported(tmp_path):
    model = build("roberta", dtype=torch.float64)
    base = {name: value.clone() for name, value in model.state_dict().items()}
    scatter(unipetl.attach(model, "lora(rank=2)", name="mine", train_head=False))
    other = unipetl.attach(model, "head_only", name="other")
    with torch.no_grad():
        for value in other.tensors().values():
            value.add_(1)
    peft.export(model, tmp_path, name="mine")
    written = safetensors.torch.load_file(tmp_path / "adapter_model.safetensors")
    same(written[f"{P}classifier.dense.weight"], base["classifier.dense.weight"], "the head in the file")


@pytest.mark.parametrize(
    ("method", "family", "why"),
    [
        ("houlsby(rank=2)", "bart", "no 'bottleneck' here"),
        ("mam(length=2, rank=2, mlp=None)", "llama", "one kind of method in a folder"),
        (
            "prefix_tuning(length=2, mlp=None)",
            "bart",
            "'encoder.0.self_attention.heads/parallel_head_attention' is another",
        ),
        ("ungated_prefix(length=2, mlp=None)", "llama", "shares the attention's softmax"),
        ("prefix_tuning(length=2, mlp=None)", "gpt2", "shift_positions=True"),
        ("prefix_tuning(length=2, mlp=None)", "mistral", "sliding window"),
        ("prefix_tuning(length=2, mlp=None)", "distilbert", "position"),
        ("prompt_tuning(length=2)", "gpt2", "positions of their own"),
        ("bitfit", "bart", "only trains the model's own"),
        ("ia3 + bitfit", "bart", "trains no biases"),
        ("ia3 + lora(rank=2)", "bart", "one kind of method"),
    ],
)
def test_what_the_format_cannot_say_is_refused(method, family, why, tmp_path):
    model = build(family)
    unipetl.attach(model, method, train_head=False)
    with pytest.raises(InteropError, match=why):
        peft.export(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def broken_folders():
    yield "use_dora", lambda c, t: c.update(use_dora=True), "DoRA"
    yield "aLoRA", lambda c, t: c.update(alora_invocation_tokens=[1]), "aLoRA"
    yield "pissa", lambda c, t: c.update(init_lora_weights="pissa"), "changes the base's own weights"
    yield "lora_only", lambda c, t: c.update(bias="lora_only"), "all biases or none"
    yield "another type", lambda c, t: c.update(peft_type="BOFT"), "unipetl reads LORA, IA3"
    yield "no type", lambda c, t: c.pop("peft_type"), "peft_type 'none'"
    yield "a wrong rank", lambda c, t: c.update(r=3), "has rank 2, and the config says 3"
    yield "alpha 0", lambda c, t: c.update(lora_alpha=0), "does nothing"
    yield "a text for a number", lambda c, t: c.update(r="2"), "'r' is '2'"
    yield "fewer targets", lambda c, t: c.update(target_modules=["v_proj"]), "no tensors|does not name it"
    yield "more targets", lambda c, t: c.update(target_modules=["q_proj", "v_proj"]), "has no tensors in the file"
    yield "a lost B", lambda c, t: t.pop(f"{P}{BART_Q[0]}.lora_B.weight"), "lora_B is missing"
    yield "a lost layer", _lose_a_layer, "has no tensors in the file"
    yield "a foreign module", _foreign, "does not have"
    yield "a misshapen A", lambda c, t: t.update({f"{P}{BART_Q[0]}.lora_A.weight": draw(2, 5)}), "maps 5 to 16"
    yield "NaN", lambda c, t: t[f"{P}{BART_Q[0]}.lora_A.weight"].fill_(float("nan")), "NaN or infinite"
    yield "an extra tensor", lambda c, t: t.update(stray=draw(2)), "belongs to nothing"
    yield "half an embedding", lambda c, t: t.update({f"{P}model.shared.lora_embedding_A": draw(2, 50)}), "incomplete"
    yield "a magnitude", lambda c, t: t.update({f"{P}{BART_Q[0]}.lora_magnitude_vector": draw(16)}), "variant of LoRA"
    yield "one trained matrix", _one_matrix, "no groups of"


def _lose_a_layer(config, tensors):
    for part in "AB":
        tensors.pop(f"{P}{BART_Q[0]}.lora_{part}.weight")


def _foreign(config, tensors):
    for part, shape in (("A", (2, 16)), ("B", (16, 2))):
        tensors[f"{P}model.encoder.layers.7.self_attn.q_proj.lora_{part}.weight"] = draw(*shape)


def _one_matrix(config, tensors):
    tensors[f"{P}model.encoder.layers.0.fc1.weight"] = draw(24, 16)


@pytest.mark.parametrize(
    ("name", "spoil", "why"), list(broken_folders()), ids=lambda one: one if isinstance(one, str) else ""
)
def test_a_damaged_or_foreign_folder_is_refused_and_touches_nothing(name, spoil, why, tmp_path):
    model = build("bart", dtype=torch.float64)
    config = {"peft_type": "LORA", "r": 2, "target_modules": ["q_proj"]}
    tensors = lora_of(model, BART_Q)
    spoil(config, tensors)
    before = Snapshot.of(model)
    with pytest.raises(InteropError, match=why):
        peft.load(model, folder(tmp_path, config, tensors))
    before.require_unchanged(model, f"after a folder with {name}")


def test_what_is_no_folder_is_refused(tmp_path):
    model = build("bart")
    with pytest.raises(InteropError, match=r"no PEFT folder"):
        peft.load(model, tmp_path)
    (tmp_path / "adapter_config.json").write_text("{")
    with pytest.raises(InteropError, match="no readable JSON"):
        peft.load(model, tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(InteropError, match="is a pickle"):
        peft.load(model, tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"{}")
    with pytest.raises(InteropError, match="no readable safetensors"):
        peft.load(model, tmp_path)


def test_names_are_a_modules_ends_and_files_are_the_same_every_time(tmp_path):
    for name in ("one", "two"):
        model = build("bart")
        scatter(unipetl.attach(model, "lora(rank=2, at=all)"))
        peft.export(model, tmp_path / name)
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    config = json.loads((tmp_path / "one" / "adapter_config.json").read_text())
    assert config["target_modules"] == ["fc1", "fc2", "k_proj", "out_proj", "q_proj", "v_proj"]
    with safetensors.safe_open(tmp_path / "one" / "adapter_model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_a_planted_wrong_scale_is_noticed(tmp_path, monkeypatch):
    from unipetl.interop.peft import lora

    monkeypatch.setattr(lora, "_scale", lambda *_: 1.0)
    model = build("bart", dtype=torch.float64)
    base = copy.deepcopy(model)
    scatter(unipetl.attach(model, "lora(rank=2, scale=3)"))
    peft.export(model, tmp_path)
    peft.load(base, tmp_path)
    with pytest.raises(unipetl.errors.CheckError):
        close(outputs(base, batch(base)), outputs(model, batch(model)), "out and in again")


def test_a_lora_of_an_embedding_is_a_lookup_and_a_product(tmp_path):
    model = build("llama", dtype=torch.float64)
    size, width = model.model.embed_tokens.weight.shape
    key = f"{P}model.embed_tokens.lora_embedding_"
    tensors = {f"{key}A": draw(2, size), f"{key}B": draw(width, 2, seed=1)}
    wanted = copy.deepcopy(model)
    wanted.model.embed_tokens.weight.data += (8 / 2 * tensors[f"{key}B"] @ tensors[f"{key}A"]).T
    settings = {"r": 2, "lora_dropout": 0.1, "target_modules": ["embed_tokens"]}
    attachment = peft.load(model, folder(tmp_path / "in", {"peft_type": "LORA", **settings}, tensors))
    assert str(attachment.method.modifications[0].representation) == "embedding"
    close(outputs(model, batch(model)), outputs(wanted, batch(model)), "a LoRA of an embedding")
    peft.export(model, tmp_path / "out")
    found = safetensors.torch.load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert set(found) == set(tensors)
    for name, value in tensors.items():
        close(found[name], value, name)


def test_a_lora_of_a_convolution_is_two_convolutions(tmp_path):
    import transformers

    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=20, image_size=16, patch_size=4
    )
    model = transformers.ViTModel(config).double().eval()
    scatter(unipetl.attach(model, "lora(rank=2, at=embedding)"))
    call = {"pixel_values": draw(2, 3, 16, 16)}
    wanted = outputs(model, call)
    peft.export(model, tmp_path)
    found = safetensors.torch.load_file(tmp_path / "adapter_model.safetensors")
    shapes = sorted(tuple(one.shape) for one in found.values())
    assert shapes == [(2, 3, 4, 4), (16, 2, 1, 1)]
    unipetl.detach(model)
    peft.load(model, tmp_path)
    same(outputs(model, call), wanted, "a convolution's LoRA that came back")


def test_a_scaled_embedding_is_refused(tmp_path):
    model = build("mbart", scale_embedding=True)
    unipetl.attach(model, "lora(rank=2, at=embedding)")
    with pytest.raises(InteropError, match="this embedding scales its vectors"):
        peft.export(model, tmp_path / "scaled")


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("target_modules", 3),
        ("target_modules", "*q_proj"),
        ("exclude_modules", [1]),
        ("layers_to_transform", "0"),
        ("layers_to_transform", ["0"]),
        ("rank_pattern", {"(": 2}),
        ("alpha_pattern", {"q_proj": "2"}),
    ],
)
def test_settings_that_name_nothing_are_refused(setting, value, tmp_path):
    model = build("bart", dtype=torch.float64)
    config = {"peft_type": "LORA", "r": 2, "target_modules": ["q_proj"], setting: value}
    with pytest.raises(InteropError, match=r"adapter_config\.json'"):
        peft.load(model, folder(tmp_path, config, lora_of(model, BART_Q)))
