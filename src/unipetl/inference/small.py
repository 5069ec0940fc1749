"""A small config of the same structure: the same heads and kinds of layers, fewer numbers in each."""

from __future__ import annotations

import copy
import math
import re
from typing import Any

from unipetl.inference.small_layers import SHARED, are_numbers, kept_layers

#: Numbers in one head of a small model.
HEAD = 8
VOCABULARY = 120
_WIDTH = re.compile(
    r"(^|_)(dims?|sizes?|widths?|hidden|embd|inner|rank|channels|d_model|d_ff|d_kv|d_inner|ffn|features)(_|$)"
)
_NO_WIDTH = re.compile(
    r"vocab|patch|image|window|kernel|stride|chunk|batch|max_|position|input_size|crop|type_|num_|n_head|block_size|"
    r"grid|pool_|pooling|bucket|tubelet|spatial|temporal|frame|codebook_size|bins|mel|state_size|conv|scale|group_size|"
    r"in_channels|out_channels_|num_channels|audio_channels|queue|sample|feature_size|input_dim|text_dim"
)
_HEADS = re.compile(
    r"(^|_)(n_heads?|num_heads|num_attention_heads|attention_heads|num_key_value_heads|num_kv_heads|n_head_kv|"
    r"n_mamba_heads)$"
)
_OF_ONE_HEAD = (
    "head_dim", "attention_head_size", "d_kv", "attention_head_dim", "head_size", "qk_nope_head_dim",
    "qk_rope_head_dim", "qk_head_dim", "v_head_dim", "rotary_dim", "global_head_dim", "linear_key_head_dim",
    "linear_value_head_dim",
    "index_head_dim", "mamba_d_head", "mamba_headdim", "mamba_head_dim",
)  # fmt: skip
_LAYERS = re.compile(r"(^|_)(num_hidden_layers|num_layers|n_layers?|layers|depth|num_hidden_groups|num_blocks|layer)$")
_OTHER_LAYERS = re.compile(r"extract|conv|feat|adapter|up_?sampl")
#: Towers whose ``hidden_size`` is the width of the text's vectors, and ``embed_dim`` their own.
_GIVES_TEXTS_WIDTH = ("qwen2_vl", "qwen2_vl_vision")
_EXPERTS = re.compile(r"^(num_experts|num_local_experts|n_routed_experts|moe_num_experts|num_moe_experts)$")


def small_config(config: Any, *, heads: bool = False) -> Any:
    """Return a copy of a transformers config with narrow and few layers, and a small vocabulary.

    All ratios of widths stay, and every kind of layer at least once.

    Args:
        config: the config; it is not touched.
        heads: whether there may be fewer heads, too; if not, their numbers stay.
    """
    small = copy.deepcopy(config)
    _shrink(small, heads)
    return small


def _shrink(config: Any, heads: bool) -> None:
    values = vars(config)
    with_layers = _own_values_of_layers(config)
    for value in list(values.values()):
        for one in value if isinstance(value, (list, tuple)) else [value]:
            if hasattr(one, "model_type") and hasattr(one, "to_dict"):
                _shrink(one, heads)
    fewer = _fewer(values) if heads else 1
    factor = _factor(config) * fewer
    depth = next((v for n, v in values.items() if _is_depth(n) and isinstance(v, int) and v > 0), None)
    keep = kept_layers(values, depth) if depth else None

    def smaller(name: str, value: Any) -> Any:
        if name.startswith("_") or isinstance(value, bool):
            return value
        if depth and keep is not None and are_numbers(name, value, depth):
            return type(value)(place for place, index in enumerate(keep) if index in value)
        if depth and keep is not None and name == SHARED:
            return sum(index >= depth - value for index in keep)
        if isinstance(value, int):
            if _HEADS.search(name):
                return value // fewer
            if name in _OF_ONE_HEAD:
                return value // (factor // fewer) if value % (factor // fewer) == 0 else value
            return _number(name, value, factor, keep, values)
        if isinstance(value, (list, tuple)) and value and all(type(one) is int for one in value):
            return _numbers(name, value, factor, keep, depth)
        if isinstance(value, (list, tuple)) and keep is not None and len(value) == depth:
            return type(value)(value[index] for index in keep)
        return value

    for name, value in list(values.items()):
        new = smaller(name, value)
        if new is not value:  # configs cannot be compared safely
            values[name] = new
    _shrink_rotary(config, factor // fewer)
    _fit(values)
    if with_layers:
        config.per_layer_config = {
            place: {name: smaller(name, value) for name, value in with_layers[index].items()}
            for place, index in (enumerate(keep) if keep is not None else ((one, one) for one in with_layers))
            if index in with_layers
        }


def _fit(values: dict[str, Any]) -> None:
    """Let values agree again that follow from others."""
    heads = values.get("num_heads")
    groups = values.get("n_groups")  # of the heads of a state-space layer
    if isinstance(heads, int) and isinstance(groups, int) and heads % groups:
        values["n_groups"] = math.gcd(heads, groups)
    if isinstance(values.get("mamba_d_ssm"), int) and isinstance(values.get("mamba_d_head"), int):
        values["mamba_d_ssm"] = values["mamba_n_heads"] * values["mamba_d_head"]
    text = values.get("text_config")
    for part in ("perceiver_config", "vision_config"):  # what is handed to the text has its width
        own = values.get(part)
        if (
            text is not None
            and own is not None
            and (part == "perceiver_config" or own.model_type in _GIVES_TEXTS_WIDTH)
        ):
            own.hidden_size = text.hidden_size
    if hasattr(values.get("qformer_config"), "encoder_hidden_size") and "vision_config" in values:
        values["qformer_config"].encoder_hidden_size = values["vision_config"].hidden_size
    if hasattr(values.get("ffn_config"), "hidden_size") and "d_model" in values:
        values["ffn_config"].hidden_size = values["d_model"]
    vision, prompt = values.get("vision_config"), values.get("prompt_encoder_config")
    if hasattr(prompt, "image_embedding_size") and hasattr(vision, "image_size"):
        prompt.image_size = vision.image_size  # type: ignore[union-attr]
        prompt.image_embedding_size = vision.image_size // vision.patch_size  # type: ignore[union-attr]
        if hasattr(vision, "output_channels"):
            width = prompt.hidden_size = values["mask_decoder_config"].hidden_size  # type: ignore[union-attr]
            vision.output_channels, vision.num_pos_feats = width, width // 2  # type: ignore[union-attr]


def _own_values_of_layers(config: Any) -> dict[int, dict[str, Any]]:
    """Return what single layers have of their own, and take it off: then every value is there to be read."""
    specification = vars(config).get("_heterogeneity_spec")
    if specification is None:
        return {}
    own = copy.deepcopy(specification.per_layer_overrides)
    config.per_layer_config = None
    return dict(own)


def _factor(config: Any) -> int:
    head = _one(
        config, "head_dim", "attention_head_size", "d_kv", "qk_nope_head_dim", "attention_head_dim", "head_size"
    )
    if not head:
        widths = "hidden_size", "d_model", "n_embd", "dim", "embed_dim", "encoder_embed_dim"
        width = _one(config, *(("embed_dim",) if getattr(config, "model_type", "") == "qwen2_vl_vision" else widths))
        heads = _one(
            config,
            "num_attention_heads",
            "n_head",
            "n_heads",
            "num_heads",
            "encoder_attention_heads",
            "attention_heads",
        )
        head = width // heads if width and heads else 0
    return max(math.gcd(head, head // HEAD), 1) if head >= 2 * HEAD and head % HEAD == 0 else 1


def _fewer(values: dict[str, Any]) -> int:
    """Return by what all numbers of heads can be divided so that at least four, and two for keys, are left."""
    found = [value for name, value in values.items() if _HEADS.search(name) and type(value) is int and value > 0]
    fewer = 1
    while found and all(value % (2 * fewer) == 0 and value // (2 * fewer) >= 2 for value in found):
        if max(found) // (2 * fewer) < 4:
            break
        fewer *= 2
    return fewer


def _one(config: Any, *names: str) -> int:
    for name in names:
        value = getattr(config, name, None)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return 0


def _number(name: str, value: int, factor: int, keep: list[int] | None, values: dict[str, Any]) -> int:
    if _is_depth(name):
        return len(keep) if keep and value > 2 and len(keep) <= value else min(value, 2)
    if _EXPERTS.match(name):
        return min(value, 4)
    if re.search(r"experts_per_tok|num_selected_experts|moe_k$|moe_topk|top_k_experts", name):
        return min(value, 2)
    if name in ("n_group", "topk_group", "num_expert_group", "n_expert_groups"):
        return min(value, 1)
    if name in ("first_k_dense_replace", "mtp_num_hidden_layers", "num_nextn_predict_layers"):
        return min(value, 1)
    if name == "max_source_positions":
        return min(value, 20)
    if name.endswith("vocab_size") and value > VOCABULARY:
        return VOCABULARY
    if name.endswith(("_token_id", "_token_index")):
        return value if 0 <= value < VOCABULARY else VOCABULARY - 1 - (value % 7)
    if name == "attention_window":  # tokens are padded to a multiple of it
        return min(value, 4)
    if name == "window_size" and "image_size" in values and "patch_size" in values:
        return min(value, 2)
    if name in ("image_size", "input_size") and value > 64 and "window_size" in values:
        patch = values.get("patch_size")  # halved by every stage, down to one window
        return 2 * patch * 2 ** (len(values.get("depths") or "123") - 1) if isinstance(patch, int) else value
    if name in ("image_size", "input_size") and value > 64:
        patch, depths = values.get("patch_size"), values.get("depths")
        if (
            isinstance(depths, (list, tuple)) and "hidden_sizes" in values and patch == 4
        ):  # halved before every further stage
            return 2 * patch * 2 ** (len(depths) - 1)
        return 4 * patch if isinstance(patch, int) and value % patch == 0 else value
    if _is_width(name) and value >= factor and value % factor == 0 and value > 8:
        return max(value // factor, 1)
    return value


def _numbers(name: str, value: Any, factor: int, keep: list[int] | None, depth: int | None) -> Any:
    made = list(value)
    if keep is not None and len(value) == depth and depth > 4:
        made = [made[index] for index in keep]
    if _is_width(name) or name in (
        "hidden_sizes",
        "embed_dims",
        "encoder_hidden_sizes",
        "dims",
        "encoder_in_channels",
        "decoder_in_channels",
    ):
        made = [one // factor if one % factor == 0 and one >= 2 * factor else one for one in made]
    if name in ("depths", "num_encoder_blocks_list"):
        made = [min(one, 2) for one in made]
    if name == "attention_window":
        made = [min(one, 4) for one in made]
    if name.endswith("_token_id"):
        made = [one if one < VOCABULARY else VOCABULARY - 1 for one in made]
    return type(value)(made)


def _is_depth(name: str) -> bool:
    return bool(_LAYERS.search(name)) and not _OTHER_LAYERS.search(name)


def _is_width(name: str) -> bool:
    return bool(_WIDTH.search(name)) and not _NO_WIDTH.search(name)


def _shrink_rotary(config: Any, factor: int) -> None:
    """Divide the sections of multimodal rotary positions, which add up to half a head; in some models by default."""
    rotary = vars(config).get("rope_parameters")
    by_default = re.search(r"_vl|glm4\d?v|glm_image|glm_ocr|omni", str(getattr(config, "model_type", "")))
    if isinstance(rotary, dict) and by_default and factor > 1 and "mrope_section" not in rotary:
        rotary["mrope_section"] = [1, 1, HEAD // 2 - 2]
        return
    for name in ("rope_parameters", "rope_scaling"):
        rope = vars(config).get(name)
        for one in [rope, *rope.values()] if isinstance(rope, dict) else []:
            section = one.get("mrope_section") if isinstance(one, dict) else None
            if isinstance(section, (list, tuple)) and factor > 1:
                made = [max(part // factor, 1) for part in section]
                made[-1] += max(sum(section) // factor, len(made)) - sum(made)
                one["mrope_section"] = made
