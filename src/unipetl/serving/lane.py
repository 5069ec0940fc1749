"""A model with its head, and every attachment of it that is served: one batch has rows of one lane.

Runs on one base whose heads differ (two labels, three labels, a language model's) have lanes of their own, which
share the base's parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel, StoppingCriteria, StoppingCriteriaList

from unipetl.attaching import routed
from unipetl.attaching.state import own_parameters
from unipetl.serving.reader import Reader, Row, left_padded, padded, padding_of

Keys = Sequence[str | None]  # of each row: an attachment's name on the model, or None


class Lane:
    """One model in evaluation mode.

    Args:
        model: every parameter is frozen here; nothing is attached yet.
        reader: how the bare model's texts are read.
    """

    def __init__(self, model: PreTrainedModel, reader: Reader) -> None:
        self.model = model.eval().requires_grad_(False)
        self.reader = reader
        self.signature = signature_of(model)
        if model.can_generate():  # every call says all of its settings
            model.generation_config = GenerationConfig()

    def classify(self, rows: list[Row], keys: Keys) -> Tensor:
        """Return the probabilities (rows, labels) in float32."""
        with self._routed(keys):
            logits: Tensor = self.model(**self._batch(rows, left=False)).logits
        return logits.float().softmax(-1).cpu()

    def generate(
        self,
        rows: list[Row],
        keys: Keys,
        settings: Mapping[str, Any],
        *,
        seed: int | None = None,
        wanted: Callable[[], bool] = lambda: True,
    ) -> list[list[int]]:
        """Return the ids that are written for every row, without the prompt.

        Args:
            rows: what is read.
            keys: the rows' attachments.
            settings: all of them, as [writing_settings][unipetl.serving.reader.writing_settings] gives them.
            seed: what is drawn depends on it; None where nothing is drawn.
            wanted: asked after each token; once it says no, nothing more is written.
        """
        left = left_padded(self.model, self.reader.kind)
        batch = self._batch(rows, left=left)
        devices = [self.model.device] if self.model.device.type == "cuda" else []
        with self._routed(keys), torch.random.fork_rng(devices=devices, enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            written = self.model.generate(
                **batch,
                generation_config=GenerationConfig(**settings),
                stopping_criteria=StoppingCriteriaList([_Unwanted(wanted)]),
            )
        if left:  # which repeats what it read
            written = written[:, batch["input_ids"].shape[1] :]
        found: list[list[int]] = written.tolist()
        return found

    def embed(self, rows: list[Row], keys: Keys) -> tuple[Tensor, Tensor]:
        """Return the last hidden states (rows, length, width) in float32, and the mask (rows, length).

        They are an encoder's where there is one. Rows are filled up on the right.
        """
        batch = self._batch(rows, left=False)
        both = self.model.config.is_encoder_decoder
        stack: nn.Module = self.model.get_encoder() if both else self.model.base_model
        with self._routed(keys):
            hidden: Tensor = stack(**batch).last_hidden_state
        return hidden.float().cpu(), batch["attention_mask"].cpu()

    def _batch(self, rows: list[Row], *, left: bool) -> dict[str, Tensor]:
        made = padded(rows, padding_of(self.model), left=left)
        return {name: value.to(self.model.device) for name, value in made.items()}

    @contextmanager
    def _routed(self, keys: Keys) -> Iterator[None]:
        if all(key is None for key in keys):
            with torch.no_grad():
                yield
            return
        with routed(self.model, list(keys)), torch.no_grad():
            yield


class _Unwanted(StoppingCriteria):
    def __init__(self, wanted: Callable[[], bool]) -> None:
        self.wanted = wanted

    def __call__(self, input_ids: Tensor, *_: Any, **__: Any) -> Any:
        """Stop every row once nobody waits for any."""
        return torch.full((len(input_ids),), not self.wanted(), device=input_ids.device)


def signature_of(model: PreTrainedModel) -> tuple[object, ...]:
    """Return what two models must have in common for one lane: class, and names and shapes of the parameters."""
    shapes = sorted((name, tuple(one.shape)) for name, one in own_parameters(model).items())
    return (type(model).__name__, *shapes)


def pooled(hidden: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """Return one vector (width,) of a row's hidden states.

    Args:
        hidden: (length, width).
        mask: (length,), 1 for tokens and 0 for what fills up behind them.
        pooling: ``mean`` over the tokens, or the ``last`` token's.
    """
    tokens = hidden[mask.bool()]
    return tokens.mean(0) if pooling == "mean" else tokens[-1]
