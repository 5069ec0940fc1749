"""Arguments for one small call of a model: ids, pixels, sound, a text for the decoder, by what its forward takes."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn

from unipetl.errors import ArchitectureError
from unipetl.inference.series import series_inputs

#: Tokens of the source and of the decoder's text: different, so that cross attention shows.
LENGTH, DECODER_LENGTH = 7, 5


def example_inputs(model: nn.Module, *, rows: int = 1) -> list[dict[str, Any]]:
    """Return keyword arguments of one call of ``model``, on its device; several choices, the likeliest first.

    Args:
        model: a transformers model.
        rows: size of the batch.

    Raises:
        ArchitectureError: it is not known what the model reads.
    """
    config = getattr(model, "config", None)
    names = set(inspect.signature(model.forward).parameters)
    parameter = next(model.parameters())
    dtype = parameter.dtype if parameter.dtype.is_floating_point else torch.float32
    generator = torch.Generator().manual_seed(0)
    series = series_inputs(config, names, rows, generator)
    if series:
        return [{name: _like(value, parameter, dtype) for name, value in series.items()}]
    text = _text_inputs(config, names, rows, generator)
    seen = _seen_inputs(config, names, rows, generator)
    target = _decoder_inputs(config, names, rows, generator)
    main = str(getattr(model, "main_input_name", "input_ids"))
    choices = [text, seen, {**text, **seen}] if main in text else [seen, {**text, **seen}, text]
    made = [{**choice, **target} for choice in choices if choice]
    if not made:
        raise ArchitectureError(
            f"{type(model).__name__}: it is not known what it reads (its main input is {main!r}). Pass "
            "`architecture=` with a table of its places."
        )
    if "use_cache" in names:
        made = [{**choice, "use_cache": False} for choice in made]
    return [{name: _like(value, parameter, dtype) for name, value in choice.items()} for choice in made]


def _like(value: Any, parameter: torch.Tensor, dtype: torch.dtype) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    return value.to(parameter.device, dtype if value.is_floating_point() else value.dtype)


def _text_inputs(config: Any, names: set[str], rows: int, generator: torch.Generator) -> dict[str, Any]:
    if "input_ids" not in names:
        return {}
    ids = _ids(config, rows, LENGTH, generator)
    made: dict[str, Any] = {"input_ids": ids}
    queries = getattr(config, "num_query_tokens", None)
    image = getattr(config, "image_token_id", getattr(config, "image_token_index", None))
    if isinstance(queries, int) and isinstance(image, int):  # places for what is seen, in front of the text
        made["input_ids"] = torch.cat([torch.full((rows, queries), image), ids], dim=1)
    if "qformer_input_ids" in names:
        made["qformer_input_ids"] = _ids(config.qformer_config, rows, LENGTH, generator)
    if "visual_feats" in names and "visual_pos" in names:
        made["visual_feats"] = torch.randn(rows, 3, _number(config, "visual_feat_dim"), generator=generator)
        made["visual_pos"] = torch.rand(rows, 3, _number(config, "visual_pos_dim", default=4), generator=generator)
    if "bbox" in names:
        made["bbox"] = torch.tensor([1, 2, 3, 4]).expand(rows, LENGTH, 4).clone()
    return made


def _seen_inputs(config: Any, names: set[str], rows: int, generator: torch.Generator) -> dict[str, Any]:
    """Return pixels or sound."""
    if "grid_thw" in names:
        return _patches(config, names, generator)
    if "spatial_shapes" in names:
        return _flat_patches(config, rows, generator)
    if "pixel_values" in names:
        return {"pixel_values": _pixels(config, rows, generator)}
    for name in ("input_features", "input_values"):
        if name in names:
            made = _mel(config, rows, generator) if name == "input_features" else _sound(config, rows, generator)
            masks = {one: torch.ones(rows, made.shape[1]) for one in ("input_features_mask",) if one in names}
            return {name: made, **{one: mask.long() for one, mask in masks.items()}}
    return {}


def _decoder_inputs(config: Any, names: set[str], rows: int, generator: torch.Generator) -> dict[str, Any]:
    encoder_decoder = bool(getattr(config, "is_encoder_decoder", False))
    if "decoder_input_ids" in names and encoder_decoder:
        return {"decoder_input_ids": _ids(getattr(config, "decoder", None) or config, rows, DECODER_LENGTH, generator)}
    if not encoder_decoder and getattr(config, "add_cross_attention", False) and "encoder_hidden_states" in names:
        width = _number(config, "cross_attention_hidden_size", "hidden_size", "n_embd", "d_model")
        return {"encoder_hidden_states": torch.randn(rows, DECODER_LENGTH, width, generator=generator)}
    return {}


def _ids(config: Any, rows: int, length: int, generator: torch.Generator) -> torch.Tensor:
    text = _text(config)
    size = _number(text, "vocab_size", "n_vocab", "text_vocab_size", default=100)
    special = [getattr(text, f"{name}_token_id", None) for name in ("pad", "eos", "bos")]
    low = min(5, size - 2)
    ids = torch.randint(low, size, (rows, length), generator=generator)
    eos = special[1]
    if isinstance(eos, int) and 0 <= eos < size:  # heads that read at the last end-of-text
        ids[:, -1] = eos
    return ids


def _text(config: Any) -> Any:
    finder = getattr(config, "get_text_config", None)
    found = finder() if callable(finder) else config
    return found if hasattr(found, "vocab_size") else config


def _pixels(config: Any, rows: int, generator: torch.Generator) -> torch.Tensor:
    vision = getattr(config, "vision_config", None) or config
    size = getattr(vision, "image_size", None) or getattr(vision, "input_size", None) or 64
    size = tuple(size) if isinstance(size, (list, tuple)) else (int(size), int(size))
    channels = _number(vision, "num_channels", "in_channels", "in_chans", default=3)
    frames = getattr(vision, "num_frames", None)
    shape = (rows, frames, channels, *size[-2:]) if isinstance(frames, int) else (rows, channels, *size[-2:])
    return torch.randn(shape, generator=generator)


def _patches(config: Any, names: set[str], generator: torch.Generator) -> dict[str, Any]:
    """Return an image that was cut into 4 x 4 patches beforehand, flattened."""
    channels = _number(config, "in_channels", "num_channels", "in_chans", default=3)
    patch = _number(config, "patch_size", "spatial_patch_size", default=14)
    size = channels * patch * patch * _number(config, "temporal_patch_size", default=1)
    name = next((one for one in ("hidden_states", "pixel_values") if one in names), "hidden_states")
    return {name: torch.randn(16, size, generator=generator), "grid_thw": torch.tensor([[1, 4, 4]])}


def _flat_patches(config: Any, rows: int, generator: torch.Generator) -> dict[str, Any]:
    """Return images of 4 x 4 flattened patches each, of which all are there."""
    vision = getattr(config, "vision_config", None) or config
    size = _number(vision, "num_channels", default=3) * _number(vision, "patch_size", default=16) ** 2
    return {
        "pixel_values": torch.randn(rows, 16, size, generator=generator),
        "pixel_attention_mask": torch.ones(rows, 16, dtype=torch.long),
        "spatial_shapes": torch.tensor([[4, 4]]).expand(rows, 2).clone(),
    }


def _mel(config: Any, rows: int, generator: torch.Generator) -> torch.Tensor:
    """Return (rows, bins, frames) where a fixed number of frames is read by convolutions, else (rows, frames, bins)."""
    audio = getattr(config, "audio_config", None) or getattr(config, "encoder_config", None) or config
    bins = _number(
        audio, "num_mel_bins", "feature_size", "input_feat_per_channel", "feature_projection_input_dim", "input_dim",
        default=80,
    )  # fmt: skip
    positions = getattr(audio, "max_source_positions", None)
    if isinstance(positions, int) and hasattr(audio, "num_mel_bins"):
        return torch.randn(rows, bins, 2 * positions, generator=generator)
    return torch.randn(rows, 64, bins, generator=generator)


def _sound(config: Any, rows: int, generator: torch.Generator) -> torch.Tensor:
    if hasattr(config, "num_mel_bins") and hasattr(config, "max_length"):  # spectrogram transformers
        return torch.randn(rows, config.max_length, config.num_mel_bins, generator=generator)
    if not hasattr(config, "conv_stride") and hasattr(config, "encoder_num_hidden_layers"):
        return torch.randn(rows, 4000, generator=generator)  # strides of 64, 3 and 2, and wide kernels
    stride = 1
    for one in getattr(config, "conv_stride", None) or getattr(config, "upsampling_ratios", None) or ():
        stride *= one
    return torch.randn(rows, max(stride * 20, 400), generator=generator)


def _number(config: Any, *names: str, default: int = 0) -> int:
    return next((value for name in names if isinstance(value := getattr(config, name, None), int)), default)
