"""AdapterHub's files without the library: its forward equations, by hand, compute the same."""

from __future__ import annotations

import json

import pytest
import safetensors.torch
import torch

from interop.adapterhub_folders import (
    HOULSBY,
    PARALLEL,
    PFEIFFER,
    PLUS,
    SEQ,
    D,
    adapt_bert,
    bert_tensors,
    draw,
    folder,
)
from unipetl.interop import adapterhub
from unipetl.testing import batch, build
from unipetl.testing.compare import close, outputs

OPTIONS = {
    "houlsby": HOULSBY,
    "pfeiffer": PFEIFFER,
    "parallel": PARALLEL,
    "both parallel": {**PARALLEL, "mh_adapter": True, "scaling": 0.5},
    "adapter plus": PLUS,
    "learned scale": {**PARALLEL, "scaling": "learned"},
    "a scale for each feature": {**HOULSBY, "scaling": "channel"},
    "norm before": {**HOULSBY, "ln_before": True, "non_linearity": "gelu"},
    "norm after": {**HOULSBY, "ln_after": True, "scaling": 2.0, "non_linearity": "gelu_new"},
    "norm after a learned scale": {**PARALLEL, "ln_after": True, "scaling": "learned", "non_linearity": "linear"},
    "norm after a scale for each feature": {**PARALLEL, "ln_after": True, "scaling": "channel"},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_a_bottleneck_is_the_librarys_equation(name, tmp_path):
    config = OPTIONS[name]
    tensors = bert_tensors(config)
    model = build("bert", dtype=torch.float64)
    wanted = outputs(adapt_bert(build("bert", dtype=torch.float64), config, tensors), batch(model))
    adapterhub.load(model, folder(tmp_path, config, tensors))
    close(outputs(model, batch(model)), wanted, name)


def test_ranks_by_layer_and_layers_left_out(tmp_path):
    config = {**SEQ, "reduction_factor": {"1": 8, "default": 4}, "leave_out": [0]}
    tensors = bert_tensors(config, layers=(1,), rank=2)
    model = build("bert", dtype=torch.float64)
    wanted = outputs(adapt_bert(build("bert", dtype=torch.float64), config, tensors), batch(model))
    adapterhub.load(model, folder(tmp_path, config, tensors))
    close(outputs(model, batch(model)), wanted, "one layer of rank 2")


def test_names_without_the_base_model_and_of_older_files_are_understood(tmp_path):
    tensors = bert_tensors(PFEIFFER)
    model = build("bert", dtype=torch.float64)
    wanted = outputs(adapt_bert(build("bert", dtype=torch.float64), PFEIFFER, tensors), batch(model))
    old = {
        key.removeprefix("bert.").replace(".adapters.", ".layer_text_task_adapters."): v for key, v in tensors.items()
    }
    adapterhub.load(model, folder(tmp_path, PFEIFFER, old))
    close(outputs(model, batch(model)), wanted, "old names")


def test_an_activation_without_a_version_has_its_old_meaning(tmp_path):
    config = {**PFEIFFER, "non_linearity": "gelu"}  # what versions before the first called gelu is gelu_new
    tensors = bert_tensors(config)
    meant = {**config, "non_linearity": "gelu_new"}
    model = build("bert", dtype=torch.float64)
    wanted = outputs(adapt_bert(build("bert", dtype=torch.float64), meant, tensors), batch(model))
    folder(tmp_path, config, tensors)
    about = json.loads((tmp_path / "adapter_config.json").read_text())
    del about["version"]
    (tmp_path / "adapter_config.json").write_text(json.dumps(about))
    adapterhub.load(model, tmp_path)
    close(outputs(model, batch(model)), wanted, "gelu of an old file")


def lora_tensors(model, ends, rank=3, fused=1):
    made = {}
    for path, module in model.named_modules():
        if path.endswith(ends):
            inner, outer = (
                (module.nx, module.nf) if hasattr(module, "nf") else (module.in_features, module.out_features)
            )
            seed = len(made)
            made[f"{path}.loras.foo.lora_A"] = draw(rank * fused, inner, seed=seed) / 4
            made[f"{path}.loras.foo.lora_B"] = draw(outer * fused // 3 if fused > 1 else outer, rank, seed=seed + 1) / 4
    return made


@pytest.mark.parametrize(
    ("version", "scale"), [("adapters.1.3.0", 2.0), ("adapters.1.0.1", 1.0), ("adapters.0.2.0", 1.0), ("3.2.1", 2.0)]
)
def test_alpha_counts_as_it_did_when_it_was_trained(version, scale, tmp_path):
    """Versions 0.1 to 1.0 of the library computed LoRA without alpha; its loader says so, and so do we."""
    model = build("roberta", dtype=torch.float64)
    tensors = lora_tensors(model, (".self.query", ".self.value"))
    merged = build("roberta", dtype=torch.float64)
    with torch.no_grad():
        for path, module in merged.named_modules():
            if f"{path}.loras.foo.lora_A" in tensors:
                module.weight += scale * tensors[f"{path}.loras.foo.lora_B"] @ tensors[f"{path}.loras.foo.lora_A"]
    config = {"architecture": "lora", "r": 3, "alpha": 6}
    adapterhub.load(model, folder(tmp_path, config, tensors, version=version))
    close(outputs(model, batch(model)), outputs(merged, batch(model)), version)


def test_a_fused_lora_is_one_for_each_letter(tmp_path):
    model, merged = build("gpt2", dtype=torch.float64), build("gpt2", dtype=torch.float64)
    tensors = lora_tensors(model, ("attn.c_attn",), rank=2, fused=2)
    with torch.no_grad():
        for path, module in merged.named_modules():
            a, b = (tensors.get(f"{path}.loras.foo.lora_{one}") for one in "AB")
            if a is not None:
                for part, columns in enumerate((slice(0, D), slice(2 * D, 3 * D))):  # query and value
                    rows, outs = slice(2 * part, 2 * part + 2), slice(D * part, D * part + D)
                    module.weight[:, columns] += (b[outs] @ a[rows]).T
    adapterhub.load(model, folder(tmp_path, {"architecture": "lora", "r": 2, "alpha": 2}, tensors))
    close(outputs(model, batch(model)), outputs(merged, batch(model)), "GPT-2's fused projection")


def test_ia3_rescales_before_the_activation_as_the_library_does(tmp_path):
    model, merged = build("distilbert", dtype=torch.float64), build("distilbert", dtype=torch.float64)
    tensors = {}
    with torch.no_grad():
        for number, (path, module) in enumerate(merged.named_modules()):
            if path.endswith(("k_lin", "v_lin", "lin1")):
                factor = tensors[f"{path}.loras.foo.lora_B"] = 1 + draw(module.out_features, 1, seed=number) / 4
                module.weight *= factor
                module.bias *= factor[:, 0]
    config = {"architecture": "lora", "r": 1, "alpha": 1, "composition_mode": "scale", "attn_matrices": ["k", "v"],
              "intermediate_lora": True}  # fmt: skip
    adapterhub.load(model, folder(tmp_path, config, tensors))
    close(outputs(model, batch(model)), outputs(merged, batch(model)), "(IA)^3")


def prefix_by_mlp(layers, width, seed=0):
    return {
        "wte.weight": draw(3, D, seed=seed),
        "control_trans.0.weight": draw(5, D, seed=seed + 1) / 4,
        "control_trans.0.bias": draw(5, seed=seed + 2),
        "control_trans.2.weight": draw(layers * 2 * width, 5, seed=seed + 3) / 2,
        "control_trans.2.bias": draw(layers * 2 * width, seed=seed + 4),
    }


def test_a_prefix_by_mlp_is_the_flat_one_it_computes(tmp_path):
    """The MLP by hand; what a flat prefix of an attention is has oracles of its own."""
    sets = {"encoder_prefix": 2, "self_prefix": 3, "cross_prefix": 3}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
    mlp, flat = {}, {}
    for number, (name, layers) in enumerate(sets.items()):
        own = prefix_by_mlp(layers, D, 10 * number)
        at = f"prefix_tuning.prefix_tunings.foo.{name}"
        mlp |= {f"model.{at}.{part}": value for part, value in own.items()}
        mlp |= {f"model.somewhere.0.prefix_tuning.pool.{at[14:]}.{part}": v.clone() for part, v in own.items()}
        z = torch.tanh(own["wte.weight"] @ own["control_trans.0.weight"].T + own["control_trans.0.bias"])
        flat[f"model.{at}.control_trans"] = (
            z @ own["control_trans.2.weight"].T + own["control_trans.2.bias"]
        ).flatten()
    config = {"architecture": "prefix_tuning", "prefix_length": 3, "bottleneck_size": 5}
    results = []
    for place, (tensors, settings) in enumerate(((mlp, config), (flat, {**config, "flat": True}))):
        model = build("bart", dtype=torch.float64, **heads)
        adapterhub.load(model, folder(tmp_path / str(place), settings, tensors))
        results.append(outputs(model, batch(model)))
    close(results[0], results[1], "the MLP and its result")


@pytest.mark.parametrize(
    ("head_config", "names"),
    [
        (None, ("classifier.dense", "classifier.out_proj")),
        ({"head_type": "classification", "layers": 2, "activation_function": "tanh", "use_pooler": False},
         ("heads.foo.1", "heads.foo.4")),
    ],
)  # fmt: skip
def test_a_head_beside_the_adapter_becomes_the_models(head_config, names, tmp_path):
    model, meant = build("roberta", dtype=torch.float64), build("roberta", dtype=torch.float64)
    tensors = lora_tensors(model, (".self.query", ".self.value"))
    folder(tmp_path, {"architecture": "lora", "r": 3, "alpha": 3}, tensors)
    head = {}
    with torch.no_grad():
        for number, (name, module) in enumerate(
            zip(names, (meant.classifier.dense, meant.classifier.out_proj), strict=True)
        ):
            for part in ("weight", "bias"):
                value = draw(*getattr(module, part).shape, seed=number)
                getattr(module, part).copy_(value)
                head[f"{name}.{part}"] = value
    (tmp_path / "head_config.json").write_text(json.dumps({"config": head_config, "name": head_config and "foo"}))
    safetensors.torch.save_file(head, tmp_path / "model_head.safetensors")
    adapterhub.load(meant, tmp_path, head=False)
    attachment = adapterhub.load(model, tmp_path)
    close(outputs(model, batch(model)), outputs(meant, batch(model)), "with the head")
    assert attachment.plan.head
