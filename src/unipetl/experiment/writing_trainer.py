"""transformers' Seq2SeqTrainer, for models without encoder too, and with label smoothing that means what it says.

A model without encoder is given a batch of prompts and targets in one line (see [unipetl.tasks.prompted][]). Its loss
is computed on that; to generate, the batch is taken apart again and the prompts are padded on the left; what is
returned is the text behind the prompt, and the target.

Label smoothing takes the labels out of a batch before the model sees it. An encoder-decoder would then have nothing to
shift into its decoder, and some (BART) silently read the input there instead: the decoder's input is made first.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments

from unipetl.tasks.prompted import left_padded, taken_apart

#: Lengths are those of the text that is written, though the prompt stands in the same line.
_NEW = {"max_length": "max_new_tokens", "min_length": "min_new_tokens"}


class WritingTrainer(Seq2SeqTrainer):
    """A ``transformers.Seq2SeqTrainer`` for models with and without encoder."""

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Return the loss, smoothed if asked for, as transformers' Trainer does."""
        if self.label_smoother is not None and "labels" in inputs:
            inputs = self._with_decoder_inputs(inputs)
        return super().compute_loss(model, inputs, *args, **kwargs)

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
        **gen_kwargs: Any,
    ) -> tuple[Any, Any, Any]:
        """Return loss, generated ids and labels; for a model without encoder, of what stands behind the prompts.

        Returns:
            the loss, ids (batch, longest written) and labels (batch, longest target); both filled up, the latter by
            -100.
        """
        assert isinstance(self.args, Seq2SeqTrainingArguments)
        generates = self.args.predict_with_generate and not prediction_loss_only
        if not generates or self._whole().config.is_encoder_decoder or "labels" not in inputs:
            if self.label_smoother is not None:
                inputs = self._with_decoder_inputs(inputs)
            return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys, **gen_kwargs)
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            loss = self.compute_loss(model, dict(inputs)).detach().mean()
        prompts, targets = taken_apart(inputs)
        settings = gen_kwargs or getattr(self, "_gen_kwargs", {})
        given = {_NEW.get(name, name): value for name, value in settings.items() if value is not None}
        batch = {name: value.to(targets.device) for name, value in left_padded(prompts, self._padding()).items()}
        written: Tensor = self._whole().generate(**batch, **given)
        return loss, written[:, batch["input_ids"].shape[1] :], targets

    def _with_decoder_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        make = getattr(self.model, "prepare_decoder_input_ids_from_labels", None)
        if make is None or "labels" not in inputs or "decoder_input_ids" in inputs:
            return inputs
        return {**inputs, "decoder_input_ids": make(labels=inputs["labels"])}

    def _padding(self) -> int:
        return int(self._whole().generation_config.pad_token_id or 0)

    def _whole(self) -> Any:
        """Return the model as it is, whatever wraps it for training."""
        return self.model
