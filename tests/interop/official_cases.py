"""Tiny models, the options to try on them, and random tensors under the names of the released code."""

from __future__ import annotations

import zlib
from functools import cache

import torch
from transformers.models.bart.configuration_bart import BartConfig
from transformers.models.bart.modeling_bart import BartForConditionalGeneration
from transformers.models.mbart.configuration_mbart import MBartConfig
from transformers.models.mbart.modeling_mbart import MBartForConditionalGeneration
from transformers.models.roberta.configuration_roberta import RobertaConfig
from transformers.models.roberta.modeling_roberta import RobertaForSequenceClassification

from interop import official_reference as reference

D, HEADS, LAYERS, VOCABULARY, PAD = 8, 2, 2, 29, 1
FFN = {"encoder": 12, "decoder": 10}
FAMILIES = ("bart", "mbart", "roberta")
ENCODER_DECODER = ("bart", "mbart")
BN, FFN_BN, MID = 3, 5, 7


def config(family: str, **changes):
    """A tiny configuration without dropout."""
    if family == "roberta":
        sizes = {
            "vocab_size": VOCABULARY, "hidden_size": D, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
            "intermediate_size": FFN["encoder"], "max_position_embeddings": 20, "pad_token_id": PAD, "num_labels": 3,
            "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "layer_norm_eps": 1e-5,
        }  # fmt: skip
        return RobertaConfig(**{**sizes, **changes})
    sizes = {
        "vocab_size": VOCABULARY, "d_model": D, "encoder_layers": LAYERS, "decoder_layers": LAYERS,
        "encoder_attention_heads": HEADS, "decoder_attention_heads": HEADS, "encoder_ffn_dim": FFN["encoder"],
        "decoder_ffn_dim": FFN["decoder"], "max_position_embeddings": 20, "dropout": 0.0, "attention_dropout": 0.0,
        "pad_token_id": PAD, "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 2,
        "forced_eos_token_id": None, "scale_embedding": family == "mbart",
    }  # fmt: skip
    return (BartConfig if family == "bart" else MBartConfig)(**{**sizes, **changes})


CLASSES = {
    "bart": BartForConditionalGeneration,
    "mbart": MBartForConditionalGeneration,
    "roberta": RobertaForSequenceClassification,
}


def randomise(model: torch.nn.Module) -> torch.nn.Module:
    """Draw every parameter anew, biases and norms too, so that nothing is where it starts; in float64, in eval mode."""
    generator = torch.Generator().manual_seed(7)
    model = model.double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter + 0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
        if hasattr(model, "final_logits_bias"):
            model.final_logits_bias.copy_(
                torch.randn(model.final_logits_bias.shape, generator=generator, dtype=torch.float64)
            )
    return model


def build(family: str, model_class: type | None = None, **changes) -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = (model_class or CLASSES[family])(config(family, **changes))
    return randomise(model)


@cache
def tiny(family: str) -> torch.nn.Module:
    """One model per family; every test detaches what it attaches."""
    return build(family)


def inputs(family: str) -> dict[str, torch.Tensor]:
    """A batch with padding on the right, and labels."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(3, VOCABULARY, (3, 6), generator=generator)
    mask = torch.ones_like(ids)
    for row, length in enumerate((6, 4, 1)):
        ids[row, length:], mask[row, length:] = PAD, 0
    batch = {"input_ids": ids, "attention_mask": mask}
    if family == "roberta":
        return {**batch, "labels": torch.tensor([2, 0, 1])}
    labels = torch.randint(3, VOCABULARY, (3, 5), generator=generator)
    labels[1, 3:] = -100
    return {**batch, "labels": labels}


# ------------------------------------------------------------------------------------------------ options
PREFIXES = [
    {"attn_mode": mode, "attn_option": option, "attn_bn": BN, **({"mid_dim": MID} if mode == "prefix" else {})}
    for mode in ("prefix", "prefix_nomlp")
    for option in ("concat", "cross_attn", "cross_attn_noln", "cross_attn_relu")
]
GATED = [
    {**one, "attn_composition": "gate_add"}
    for one in PREFIXES
    if one["attn_option"] in ("cross_attn", "cross_attn_noln")
]
ADAPTERS = [{"attn_mode": "adapter", "attn_option": option, "attn_bn": BN} for option in ("sequential", "parallel")]
LORA = {"attn_mode": "lora", "attn_option": "none", "attn_bn": BN, "lora_alpha": "12"}
BITFIT = {"attn_mode": "bitfit"}
PROMPT = {"attn_mode": "prompt_tuning", "attn_bn": BN}
FFN_LORA = {"ffn_mode": "lora", "ffn_bn": FFN_BN, "lora_alpha": 12}
NOTHING = {"attn_mode": "none"}


def attention_options(family: str) -> list[dict]:
    """Every ``attn_mode`` that runs on the family as released."""
    own = [*ADAPTERS, *PREFIXES, LORA, BITFIT]
    return own if family == "roberta" else [*own, *GATED, PROMPT]


def ffn_options(family: str) -> list[dict]:
    """Every ``ffn_mode`` that runs on the family as released."""
    places = ("sequential", "parallel") + (("pfeiffer",) if family != "bart" else ())
    adapters = [
        {"ffn_mode": "adapter", "ffn_option": place, "ffn_bn": FFN_BN, "ffn_adapter_layernorm_option": normed,
         "ffn_adapter_scalar": scalar}
        for place in places for normed in ("none", "in", "out") for scalar in ("4", "learnable_scalar")
    ]  # fmt: skip
    return [*adapters, FFN_LORA]


def alone(family: str) -> list[dict]:
    """Every option by itself."""
    return [*attention_options(family), *ffn_options(family), NOTHING]


def mixes(family: str) -> list[dict]:
    """Every attention option with some FFN option, each of both at least once; the first is MAM."""
    attention, ffn = attention_options(family), ffn_options(family)
    count = max(len(attention), len(ffn))
    paired = [{**attention[i % len(attention)], **ffn[(5 * i + 1) % len(ffn)]} for i in range(count)]
    mam = {**PREFIXES[0], **ffn[6], "ffn_adapter_init_option": "lora"}
    return [mam, *paired]


def title(options: dict) -> str:
    short = {"adapter": "adapter", "learnable_scalar": "learned"}
    skip = ("attn_bn", "ffn_bn", "mid_dim", "lora_alpha", "ffn_adapter_init_option")
    return "-".join(short.get(str(value), str(value)) for key, value in options.items() if key not in skip)


# ------------------------------------------------------------------------------------------------ tensors
def adapter_shapes(path: str, size: int, normed: bool, learned: bool) -> dict[str, tuple[int, ...]]:
    shapes = {
        f"{path}.down_proj.weight": (size, D), f"{path}.down_proj.bias": (size,),
        f"{path}.up_proj.weight": (D, size), f"{path}.up_proj.bias": (D,),
    }  # fmt: skip
    if normed:
        shapes |= {f"{path}.adapter_layer_norm_before.{part}": (D,) for part in ("weight", "bias")}
    return shapes | ({f"{path}.scale": (1,)} if learned else {})


def layer_paths(family: str, decoder_layers: int = LAYERS) -> list[tuple[str, str]]:
    """Every layer's path, with its stack."""
    if family == "roberta":
        return [(f"roberta.encoder.layer.{i}", "encoder") for i in range(LAYERS)]
    depths = {"encoder": LAYERS, "decoder": decoder_layers}
    return [(f"model.{stack}.layers.{i}", stack) for stack, depth in depths.items() for i in range(depth)]


def cores(family: str, path: str, stack: str) -> list[str]:
    if family == "roberta":
        return [f"{path}.attention.self"]
    return [f"{path}.self_attn"] + ([f"{path}.encoder_attn"] if stack == "decoder" else [])


def inserted_shapes(family: str, options: dict, decoder_layers: int = LAYERS) -> dict[str, tuple[int, ...]]:
    """Names and shapes of everything the released code inserts, what it never reads included."""
    mode, option = options.get("attn_mode", "none"), options.get("attn_option", "concat")
    shapes = prefix_shapes(mode)
    if mode == "prompt_tuning" and family != "roberta":
        shapes["model.encoder.ef_prefix_emb.weight"] = (BN, D)
    for path, stack in layer_paths(family, decoder_layers):
        for core in cores(family, path, stack):
            if mode.startswith("prefix") and option in ("cross_attn", "cross_attn_relu"):
                shapes |= {f"{core}.ef_transform_layer_norm.{part}": (D,) for part in ("weight", "bias")}
            if mode == "adapter":
                after = family == "roberta" and option == "sequential"
                where = core.replace("attention.self", "attention.output") if after else core
                shapes |= adapter_shapes(f"{where}.ef_attn_adapter", BN, True, False)
            if mode == "lora":
                for part in ("query", "value") if family == "roberta" else ("q_proj", "v_proj"):
                    shapes |= {f"{core}.{part}.ef_lora_A": (BN, D), f"{core}.{part}.ef_lora_B": (D, BN)}
        shapes |= ffn_shapes(family, options, path, stack)
    return shapes


def prefix_shapes(mode: str) -> dict[str, tuple[int, ...]]:
    shapes = {}
    if mode == "prefix_nomlp":
        for place in ("encoder_attn", "decoder_self_attn", "decoder_cross_attn"):
            for part in ("key", "value"):
                shapes |= {f"prompt_model.{place}_{part}.{i}.weight": (BN, D) for i in range(LAYERS)}
    if mode == "prefix":
        for suffix in ("", "_enc", "2"):
            mlp = f"prompt_model.control_trans{suffix}"
            shapes |= {
                f"prompt_model.wte{suffix}.weight": (BN, D), f"{mlp}.0.weight": (MID, D), f"{mlp}.0.bias": (MID,),
                f"{mlp}.2.weight": (2 * LAYERS * D, MID), f"{mlp}.2.bias": (2 * LAYERS * D,),
            }  # fmt: skip
    return shapes


def ffn_shapes(family: str, options: dict, path: str, stack: str) -> dict[str, tuple[int, ...]]:
    mode = options.get("ffn_mode", "none")
    shapes = {}
    if mode == "lora":
        up, down = ("intermediate.dense", "output.dense") if family == "roberta" else ("fc1", "fc2")
        wide = FFN[stack]
        shapes |= {f"{path}.{up}.ef_lora_A": (FFN_BN, D), f"{path}.{up}.ef_lora_B": (wide, FFN_BN)}
        shapes |= {f"{path}.{down}.ef_lora_A": (FFN_BN, wide), f"{path}.{down}.ef_lora_B": (D, FFN_BN)}
    if mode == "adapter":
        normed = options.get("ffn_adapter_layernorm_option", "in") != "none"
        learned = options.get("ffn_adapter_scalar") == "learnable_scalar"
        places = [f"{path}.output", path] if family == "roberta" else [path]
        if options["ffn_option"] != "parallel":
            places = places[:1]
        for place in places:
            shapes |= adapter_shapes(f"{place}.ef_ffn_adapter", FFN_BN, normed, learned)
    return shapes


def draw(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Random values that depend on the names alone, of a size that makes every part matter."""
    values = {}
    for name, shape in shapes.items():
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        value = torch.randn(shape, generator=generator, dtype=torch.float64)
        values[name] = 1 + 0.5 * value if "norm" in name and name.endswith("weight") else 0.6 * value
    return values


def base_state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The model's own parameters and buffers, copied."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items() if "unipetl" not in name}


def trained_state(family: str, options: dict, model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """What a run would have saved of what it trains: inserted tensors, and changed own ones."""
    state = draw(inserted_shapes(family, options))
    mode, ffn = options.get("attn_mode", "none"), options.get("ffn_mode", "none")
    if mode == "bitfit" or (mode, ffn) == ("none", "none"):
        for name, parameter in model.named_parameters():
            if mode == "none" or "bias" in name:
                state[name] = parameter.detach() + 0.1 * draw({name: tuple(parameter.shape)})[name]
    return state


def reference_model(family: str, options: dict, base: dict, trained: dict) -> reference.Model:
    """The reference with every trained tensor a leaf that takes gradients."""
    leaves = {name: tensor.clone().requires_grad_(True) for name, tensor in trained.items()}
    return reference.Model(family, options, {**base, **leaves}, heads=HEADS, layers=LAYERS, pad=PAD)


def reference_logits(m: reference.Model, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    if m.family == "roberta":
        return reference.roberta(m, batch["input_ids"], batch["attention_mask"])
    decoder_ids = reference.shift(m, batch["labels"])
    return reference.bart(m, batch["input_ids"], batch["attention_mask"], decoder_ids)
