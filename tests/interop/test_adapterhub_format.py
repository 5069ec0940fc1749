"""AdapterHub's files without the library: its forward equations, by hand, compute the same; faults are refused.

The oracle computes with torch alone, in the modules where the library has its own, and knows nothing of our forms.
"""

from __future__ import annotations

import json
import math

import pytest
import safetensors.torch
import torch
from torch import nn
from torch.nn import functional as F

import unipetl
from unipetl.errors import InteropError
from unipetl.interop import adapterhub
from unipetl.testing import batch, build
from unipetl.testing.compare import close, outputs, scatter

D = 16  # the width of the toy models
SEQ = {"mh_adapter": False, "output_adapter": True, "non_linearity": "relu", "reduction_factor": 4}
HOULSBY = {**SEQ, "mh_adapter": True, "non_linearity": "swish"}
PFEIFFER = {**SEQ, "original_ln_before": True}
PARALLEL = {**SEQ, "is_parallel": True, "scaling": 4.0}
PLUS = {**SEQ, "original_ln_before": True, "original_ln_after": False, "residual_before_ln": False}
ACTS = {"relu": F.relu, "swish": F.silu, "gelu": F.gelu, "linear": lambda z: z,
        "gelu_new": lambda z: 0.5 * z * (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))}  # fmt: skip
#: Layers of a toy model: where each stack's blocks are, and what a sub-layer's end is called in them.
BERT = ("bert.encoder.layer", {"mh_adapter": "attention.output", "output_adapter": "output"})


def draw(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def folder(path, config, tensors, **about):
    path.mkdir(exist_ok=True)
    whole = {"config": config, "name": "foo", "version": "adapters.1.3.0", "model_type": "bert", **about}
    (path / "adapter_config.json").write_text(json.dumps(whole))
    safetensors.torch.save_file(tensors, path / "adapter.safetensors")
    return path


def bottleneck_tensors(path, config, rank=4, seed=0):
    """One bottleneck under the library's names."""
    at = f"{path}.adapters.foo"
    linear = 1 if config.get("ln_before") else 0
    made = {
        f"{at}.adapter_down.{linear}.weight": draw(rank, D, seed=seed) / 4,
        f"{at}.adapter_down.{linear}.bias": draw(rank, seed=seed + 1) / 4,
        f"{at}.adapter_up.weight": draw(D, rank, seed=seed + 2) / 2,
        f"{at}.adapter_up.bias": draw(D, seed=seed + 3) / 4,
    }
    for option, names in {
        "ln_before": ("adapter_norm_before", "adapter_down.0"),
        "ln_after": ("adapter_norm_after",),
    }.items():
        for name in names if config.get(option) else ():
            made[f"{at}.{name}.weight"] = 1 + draw(D, seed=seed + 4) / 4
            made[f"{at}.{name}.bias"] = draw(D, seed=seed + 5) / 4
    if config.get("scaling") in ("learned", "channel"):
        made[f"{at}.scaling"] = 1 + draw(1 if config["scaling"] == "learned" else D, seed=seed + 6) / 2
    return made


def sized(tensors, path):
    at = f"{path}.adapters.foo."
    return {key.removeprefix(at): value for key, value in tensors.items() if key.startswith(at)}


def library(config, own, h, x, norm):
    """What the library's sub-layer end computes from the result h and the residual x; norm is the post-norm or None."""

    def bottleneck(z):
        linear = 0
        if config.get("ln_before"):
            linear, z = 1, F.layer_norm(z, (D,), own["adapter_norm_before.weight"], own["adapter_norm_before.bias"])
        z = F.linear(z, own[f"adapter_down.{linear}.weight"], own[f"adapter_down.{linear}.bias"])
        z = F.linear(ACTS[config["non_linearity"]](z), own["adapter_up.weight"], own["adapter_up.bias"])
        z = z * (own["scaling"] if "scaling" in own else config.get("scaling", 1.0))
        if config.get("ln_after"):
            z = F.layer_norm(z, (D,), own["adapter_norm_after.weight"], own["adapter_norm_after.bias"])
        return z

    if config.get("is_parallel"):
        result = h + bottleneck(x)
    else:
        read = h
        if config.get("original_ln_before"):
            read = h + x if norm is None else norm(h + x)
        residual = h if config.get("residual_before_ln", True) else read
        result = residual + bottleneck(read)
    if config.get("original_ln_after", True):
        result = result + x if norm is None else norm(result + x)
    return result


def adapt_bert(model, config, tensors):
    """Put the library's sub-layer ends into a BERT, by hand."""

    class End(nn.Module):
        def __init__(self, old, own):
            super().__init__()
            self.old, self.own = old, own

        def forward(self, hidden_states, input_tensor):
            h = self.old.dropout(self.old.dense(hidden_states))
            return library(config, self.own, h, input_tensor, self.old.LayerNorm)

    for layer, block in enumerate(model.bert.encoder.layer):
        for where, holder in ((block.attention, "attention.output"), (block, "output")):
            own = sized(tensors, f"bert.encoder.layer.{layer}.{holder}")
            if own:
                where.output = End(where.output, own)
    return model


def bert_tensors(config, layers=(0, 1), rank=4):
    made = {}
    for layer in layers:
        for place, (option, holder) in enumerate(BERT[1].items()):
            if config[option]:
                made |= bottleneck_tensors(f"{BERT[0]}.{layer}.{holder}", config, rank, seed=100 * layer + 10 * place)
    return made


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


FAULTS = {
    "gating": ({**SEQ, "use_gating": True}, "averaged over the text"),
    "compacter": ({**SEQ, "phm_layer": True}, "Kronecker"),
    "invertible": ({**SEQ, "inv_adapter": "nice"}, "invertible"),
    "an old invertible": ({**SEQ, "invertible_adapter": {"block_type": "nice"}}, "invertible"),
    "two norms": ({**SEQ, "ln_before": True, "ln_after": True}, "one norm"),
    "residual inside the norm": ({**SEQ, "ln_after": True, "adapter_residual_before_ln": True}, "not added"),
    "norm before at attention": ({**HOULSBY, "original_ln_before": True}, "no representation"),
    "no residual": ({**SEQ, "original_ln_after": False}, "leaves the model's own residual"),
    "two residuals": ({**PLUS, "original_ln_after": True}, "twice"),
    "residual after adding": ({**PFEIFFER, "residual_before_ln": "post_add"}, "residual"),
    "dropout": ({**SEQ, "dropout": 0.1}, "ignore_dropout=True"),
    "stochastic depth": ({**SEQ, "stochastic_depth": 0.1}, "ignore_dropout=True"),
    "activation": ({**SEQ, "non_linearity": "leakyrelu"}, "relu, gelu"),
    "an integer scale": ({**SEQ, "scaling": 4}, "float"),
    "unknown setting": ({**SEQ, "scalling": 4.0}, "scaling"),
    "reft": ({"architecture": "reft"}, "positions"),
    "prompt": ({"architecture": "prompt_tuning"}, "norm"),
    "mtl": ({"architecture": "mtl_lora"}, "each task"),
    "dora": ({"architecture": "lora", "use_dora": True}, "DoRA"),
    "vera": ({"architecture": "lora", "vera_d": 0.1}, "VeRA"),
    "gated lora": ({"architecture": "lora", "use_gating": True}, "averaged"),
    "relu prefix": ({"architecture": "prefix_tuning", "non_linearity": "relu"}, "eject_prefix_tuning"),
    "an empty union": ({"architecture": "union", "configs": []}, "without members"),
    "alpha of a union": (
        {"architecture": "union", "configs": [{"architecture": "lora", "alpha": 16}, SEQ]},
        "cannot be told",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_unipetl_has_not_is_refused_with_the_reason(name, tmp_path):
    config, words = FAULTS[name]
    version = "adapters.1.0.0" if "alpha" in name else "adapters.1.3.0"
    model = build("bert")
    with pytest.raises(InteropError, match=words):
        adapterhub.load(model, folder(tmp_path, config, {"x": torch.zeros(1)}, version=version))
    assert unipetl.attachments(model) == ()


def test_a_prefix_of_t5_is_another_function_there(tmp_path):
    config = {"architecture": "prefix_tuning", "prefix_length": 3}
    with pytest.raises(InteropError, match="relative position bias"):
        adapterhub.load(build("t5"), folder(tmp_path, config, {"x": torch.zeros(1)}))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("bert.encoder.layer.1.output.adapters.foo.adapter_up.bias"), "is missing"),
        (lambda t: t.update({"bert.encoder.layer.9.output.adapters.foo.adapter_up.bias": torch.zeros(D)}), "left over"),
        (lambda t: t.update({"bert.encoder.layer.0.output.adapters.foo.adapter_up.bias": torch.zeros(3)}), "shape"),
        (lambda t: t.update({"bert.encoder.layer.0.output.adapters.foo.adapter_up.bias": torch.full((D,), torch.nan)}),
         "NaN"),
        (lambda t: t.update({"encoder.layer.0.output.adapters.foo.adapter_up.bias": torch.zeros(D)}), "twice"),
    ],
)  # fmt: skip
def test_a_file_that_does_not_fit_is_refused_and_the_model_is_as_it_was(change, words, tmp_path):
    tensors = bert_tensors(SEQ)
    change(tensors)
    model = build("bert")
    before = outputs(model, batch(model))
    with pytest.raises(InteropError, match=words):
        adapterhub.load(model, folder(tmp_path, SEQ, tensors))
    assert torch.equal(outputs(model, batch(model)), before)
    assert unipetl.attachments(model) == ()


def test_a_pickle_is_never_opened_and_the_way_out_is_said(tmp_path):
    folder(tmp_path, SEQ, {"x": torch.zeros(1)})
    (tmp_path / "adapter.safetensors").rename(tmp_path / "pytorch_adapter.bin")
    with pytest.raises(InteropError, match=r"is a pickle(.|\n)*python -c .*weights_only=True.*'adapter.safetensors'"):
        adapterhub.load(build("bert"), tmp_path)


def test_a_family_the_library_does_not_have_is_refused(tmp_path):
    with pytest.raises(InteropError, match="'marian' are not known"):
        adapterhub.load(build("marian"), folder(tmp_path, SEQ, {"x": torch.zeros(1)}))


def test_a_folder_of_peft_is_recognised(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    safetensors.torch.save_file({"x": torch.zeros(1)}, tmp_path / "adapter.safetensors")
    with pytest.raises(InteropError, match=r"interop\.peft"):
        adapterhub.load(build("bert"), tmp_path)


OURS = {
    "houlsby": ("bert", "houlsby(rank=3)"),
    "pfeiffer": ("roberta", "pfeiffer(rank=4)"),
    "lora": ("gpt2", "lora(rank=3, alpha=5)"),
    "lora with two scales": ("bart", "lora(rank=2, scale=3) + lora(rank=2, at=ffn, scale=0.1)"),
    "learned": ("bert", "lora(rank=2, scale=learned)"),
    "prefix": ("distilbert", "prefix_tuning(length=3, mlp=None)"),
    "prefix by MLP": ("llama", "prefix_tuning(length=3, mlp=4)"),
    "mam": ("bart", "mam(length=3, rank=5)"),
    "head": ("distilbert", "houlsby(rank=3) + head_only"),
}


@pytest.mark.parametrize("name", OURS)
def test_export_then_import_is_the_same_function(name, tmp_path):
    family, method = OURS[name]
    heads = {"decoder_attention_heads": 4} if family == "bart" else {}
    model, again = build(family, dtype=torch.float64, **heads), build(family, dtype=torch.float64, **heads)
    scatter(unipetl.attach(model, method, name="mine"))
    wanted = outputs(model, batch(model))
    adapterhub.export(model, tmp_path)
    attachment = adapterhub.load(again, tmp_path)
    close(outputs(again, batch(model)), wanted, name, 1e-5 if family == "llama" else 1e-9)
    adapterhub.export(again, tmp_path / "again", name=attachment.name)
    first, second = (safetensors.torch.load_file(p / "adapter.safetensors") for p in (tmp_path, tmp_path / "again"))
    first = {key.replace(".mine.", ".default."): value for key, value in first.items()}
    assert set(first) == set(second)
    assert all(torch.equal(value, second[key]) for key, value in first.items())


TOO_MUCH = {
    "prompt": ("llama", "prompt_tuning(length=3)", "embeddings' norm"),
    "ungated": (
        "bert",
        "modifications: [{representation: attention.heads, form: {head_attention: {length: 3}}}]",
        "softmax",
    ),
    "inside the FFN": ("bert", "modifications: [{representation: ffn.up, form: {bottleneck: {rank: 3}}}]", "ffn.up"),
    "reads behind the norm": ("llama", "parallel_adapter(rank=3)", "reads the residual stream before the norm"),
    "two ranks": ("bert", "lora(rank=2) + lora(rank=3, at=ffn)", "one rank"),
    "bias": ("bert", "lora(rank=2) + bitfit", "no parameters of the model but its head"),
    "nothing else": ("bert", "bitfit", "no parameters of the model but its head"),
    "one layer of query": (
        "bert",
        "modifications: [{representation: {name: attention.query, layers: [0]}, form: {low_rank: {rank: 2}}}, "
        "{representation: attention.value, form: {low_rank: {rank: 2}}}]",
        "exactly these places",
    ),
    "prefix of T5": ("t5", "prefix_tuning(length=3)", "relative position bias"),
}


@pytest.mark.parametrize("name", TOO_MUCH)
def test_what_the_format_cannot_say_is_refused_with_the_reason(name, tmp_path):
    family, text, words = TOO_MUCH[name]
    method = unipetl.Method.from_yaml(text) if text.startswith("modifications") else text
    model = build(family)
    unipetl.attach(model, method)
    with pytest.raises(InteropError, match=words):
        adapterhub.export(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()
