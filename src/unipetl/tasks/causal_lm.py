"""A user's own texts for a model that continues texts, judged by perplexity.

One text per example, in the column ``text``. With the option ``prompt``, another column is read in front of it and not
learnt. Perplexity is exp of the mean negative log likelihood per token, over all tokens of all texts, the end included;
the first token counts only where something stands before it (a prompt, or the model's start token).
"""

from __future__ import annotations

import math
from typing import Any, cast, final

import datasets
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import EvalPrediction

from unipetl.tasks.options import LanguageOptions
from unipetl.tasks.prompted import IGNORED, PromptCollator
from unipetl.tasks.rows import Rows
from unipetl.tasks.sources import EVALUATION, TRAINING, Judged, Splits
from unipetl.tasks.spelling import Ids
from unipetl.tasks.task import Kind, Prepared, check_order, outputs
from unipetl.tasks.text_models import by_length, capacity, check_vocabulary, cut_note, flat, load_writer
from unipetl.tasks.text_task import TextTask

LENGTH = 512  # tokens, unless the options say
CONTINUATION = 50  # tokens that are written when one asks for a prediction


@final
class CausalLm(TextTask):
    """Text -> how probable it is."""

    name = "causal-lm"
    metric = "perplexity"
    greater_is_better = False
    kind: Kind = "language-modelling"
    description = "your own texts, for a model that continues them"
    judged: Judged = "test"

    @classmethod
    def options_type(cls) -> type[LanguageOptions]:
        """See [TextTask.options_type][]."""
        return LanguageOptions

    def assemble(self, model: str, splits: Splits, seed: int) -> Prepared:
        """See [TextTask.assemble][]."""
        chosen = cast("LanguageOptions", self.options)
        read = {name: _read(rows, chosen) for name, rows in splits.sets().items()}
        network, tokenizer = load_writer(model, seed, self.name, decoder_only=True)
        wanted = chosen.max_length or LENGTH
        length = min(wanted, capacity(network, tokenizer) or wanted)
        notes = list(splits.notes)
        ready: dict[str, datasets.Dataset] = {}
        for name, (prompts, texts) in read.items():
            inputs, labels, cut = _spelt(prompts, texts, tokenizer, length)
            notes += cut_note(cut, len(texts), f"{name} texts", length)
            notes += check_vocabulary(network, tokenizer, flat(inputs, labels), self.name)
            lines = [prompt + text for prompt, text in zip(inputs, labels, strict=True)]
            order = range(len(lines)) if name == TRAINING else by_length(lines)
            read[name] = [prompts[number] for number in order], [texts[number] for number in order]
            ready[name] = datasets.Dataset.from_dict(
                {"input_ids": [inputs[number] for number in order], "labels": [labels[number] for number in order]}
            )

        def describe(prediction: EvalPrediction) -> list[dict[str, Any]]:
            sums = outputs(prediction)
            check_order(len(sums), len(ready[EVALUATION]), self.name)
            return [
                {"input": prompt, "gold": text, "tokens": int(count), "perplexity": math.exp(loss / max(count, 1))}
                for prompt, text, (loss, count) in zip(*read[EVALUATION], sums, strict=True)
            ]

        def encode(text: str) -> dict[str, list[int]]:
            room = max(length - CONTINUATION, 1)
            return {"input_ids": (_start(tokenizer) + _ids(tokenizer, [text])[0])[-room:]}

        return Prepared(
            model=network,
            tokenizer=tokenizer,
            **splits.fields(ready),
            collator=PromptCollator(tokenizer.pad_token_id),
            compute_metrics=perplexity,
            generation={"max_new_tokens": CONTINUATION, "do_sample": False},
            describe_predictions=describe,
            encode=encode,
            reduce_logits=token_losses,
            notes=tuple(dict.fromkeys(notes)),
        )


def token_losses(logits: Any, labels: Tensor) -> Tensor:
    """Return each row's sum of negative log likelihoods and number of tokens (batch, 2), in float64.

    Args:
        logits: (batch, length, vocabulary), or a tuple that begins with them.
        labels: (batch, length); -100 does not count, nor does a first token.
    """
    scores = logits[0] if isinstance(logits, tuple) else logits
    learnt = labels[:, 1:]
    losses = functional.cross_entropy(
        scores[:, :-1].float().transpose(1, 2), learnt, ignore_index=IGNORED, reduction="none"
    )
    return torch.stack([losses.double().sum(1), (learnt != IGNORED).sum(1).double()], dim=1)


def perplexity(prediction: EvalPrediction) -> dict[str, float]:
    """Return exp of the mean negative log likelihood per token, from [token_losses][] of every example."""
    losses, counts = np.asarray(outputs(prediction), dtype=float).sum(axis=0)
    mean = losses / counts
    return {"perplexity": math.exp(mean) if mean < 700 else math.inf, "token_loss": float(mean)}


def _read(rows: Rows, chosen: LanguageOptions) -> tuple[list[str], list[str]]:
    """Return the prompts, empty where there is no column for them, and the texts."""
    texts = rows.texts(chosen.text)
    return rows.texts(chosen.prompt) if chosen.prompt else [""] * len(texts), texts


def _spelt(prompts: list[str], texts: list[str], tokenizer: Any, length: int) -> tuple[Ids, Ids, int]:
    """Return prompts and texts as ids, together no longer than ``length``, and how many were cut.

    A text loses its end, and a prompt its beginning, that first.
    """
    start = _start(tokenizer)
    inputs, labels, cut = [], [], 0
    for prompt, text in zip(_ids(tokenizer, prompts), _ids(tokenizer, texts), strict=True):
        learnt = [*text, tokenizer.eos_token_id][: length - len(start)]
        room = length - len(start) - len(learnt)
        inputs.append(start + (prompt[-room:] if room else []))
        labels.append(learnt)
        cut += len(start) + len(prompt) + len(text) + 1 > length
    return inputs, labels, cut


def _ids(tokenizer: Any, texts: list[str]) -> Ids:
    return [list(row) for row in tokenizer(texts, add_special_tokens=False)["input_ids"]]


def _start(tokenizer: Any) -> list[int]:
    return [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else []
