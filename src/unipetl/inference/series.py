"""Arguments for one small call of a model of series: numbers over time, or states, actions and returns."""

from __future__ import annotations

from typing import Any

import torch

#: Steps of a trajectory.
STEPS = 5


def series_inputs(config: Any, names: set[str], rows: int, generator: torch.Generator) -> dict[str, Any]:
    """Return what a model reads that is called with past values or with states; {} for other models.

    Args:
        config: the model's config.
        names: the arguments that its forward takes.
        rows: size of the batch.
        generator: draws the numbers.
    """
    if {"states", "actions", "returns_to_go"} <= names:
        return _trajectory(config, rows, generator)
    if "past_values" not in names:
        return {}
    length = int(getattr(config, "context_length", 0) or 0)
    channels = int(getattr(config, "num_input_channels", 0) or 0)
    if channels:
        return {"past_values": torch.randn(rows, length, channels, generator=generator)}
    if "past_time_features" not in names or not length:
        return {}
    past, future = length + max(config.lags_sequence), int(config.prediction_length)
    made = {"past_values": torch.randn(rows, past, generator=generator), "past_observed_mask": torch.ones(rows, past)}
    made["future_values"] = torch.randn(rows, future, generator=generator)
    for name, steps in (("past_time_features", past), ("future_time_features", future)):
        made[name] = torch.randn(rows, steps, int(config.num_time_features), generator=generator)
    return made


def _trajectory(config: Any, rows: int, generator: torch.Generator) -> dict[str, Any]:
    def numbers(size: int) -> torch.Tensor:
        return torch.randn(rows, STEPS, size, generator=generator)

    return {
        "states": numbers(config.state_dim),
        "actions": numbers(config.act_dim),
        "rewards": numbers(1),
        "returns_to_go": numbers(1),
        "timesteps": torch.arange(STEPS).expand(rows, STEPS).clone(),
        "attention_mask": torch.ones(rows, STEPS, dtype=torch.long),
    }
