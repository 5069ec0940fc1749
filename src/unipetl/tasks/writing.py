"""Tasks whose model writes a text: summaries, translations, anything of a source and a target.

An encoder-decoder reads the source, behind a prefix where it was trained with one (T5). A model without encoder reads a
prompt that holds the source; its loss is the target's alone, and it is generated from with padding on the left.

References are the labels decoded, as in the paper's scripts, so they are cut where ``max_reference_length`` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import datasets
from transformers import EvalPrediction, PreTrainedModel

from unipetl.errors import TaskError, unknown
from unipetl.tasks.decoding import decoded, written_and_right
from unipetl.tasks.generation_settings import check_names, settings
from unipetl.tasks.judging import Judge
from unipetl.tasks.languages import speak
from unipetl.tasks.options import WritingOptions
from unipetl.tasks.sources import EVALUATION, TRAINING, Judged, Splits
from unipetl.tasks.spelling import EncoderDecoderSpeller, PromptSpeller, Speller
from unipetl.tasks.task import Kind, Prepared, check_order
from unipetl.tasks.text_models import by_length, capacity, check_vocabulary, cut_note, flat, load_writer
from unipetl.tasks.text_task import TextTask


class Writing(TextTask):
    """Source -> target, both texts.

    Attributes:
        inside: a column that may hold objects with the two columns in them.
        source, target: the columns' names.
        judges: metric -> how texts are judged when the task is judged by it; the first unless the options say.
        max_source_length, max_target_length: tokens, end included, that are read and learnt.
        max_reference_length: tokens of a reference that count; 0 for all.
        beams: arguments of ``generate``.
        prefixes: a model's type -> what it was trained to read in front of a source.
        prompt: what a model without encoder reads.
        languages: codes of source and target for tokenizers of many languages.
    """

    greater_is_better: bool = True
    kind: Kind = "seq2seq"
    judged: Judged = "test"
    inside: str | None = None
    source: str = "source"
    target: str = "target"
    judges: ClassVar[Mapping[str, Judge]]
    max_source_length: int = 512
    max_target_length: int = 128
    max_reference_length: int = 0
    beams: ClassVar[Mapping[str, Any]] = {}
    prefixes: ClassVar[Mapping[str, str]] = {}
    prompt: str = "{source}\n"
    languages: tuple[str, str] | None = None

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        """See [TextTask][]."""
        super().__init__(options)
        self.metric = self.chosen.metric or next(iter(self.judges))
        if self.metric not in self.judges:
            raise TaskError(f"task {self.name!r}: {unknown('metric', self.metric, self.judges)}")
        check_names(self.chosen.generation, self.name)

    @classmethod
    def options_type(cls) -> type[WritingOptions]:
        """See [TextTask.options_type][]."""
        return WritingOptions

    @property
    def chosen(self) -> WritingOptions:
        """The options."""
        return cast("WritingOptions", self.options)

    def assemble(self, model: str, splits: Splits, seed: int) -> Prepared:
        """See [TextTask.assemble][]."""
        rows = {name: one.unpacked(self.inside) if self.inside else one for name, one in splits.sets().items()}
        sources = {name: one.texts(self.chosen.source or self.source) for name, one in rows.items()}
        targets = {name: one.texts(self.chosen.target or self.target) for name, one in rows.items()}
        network, tokenizer = load_writer(model, seed, self.name)
        speller = self._speller(network, tokenizer)
        judge = self.judges[self.metric]
        lengths = self._lengths(network, tokenizer)
        generation, notes = settings(
            self.beams,
            self.chosen.generation,
            task=self.name,
            decoder_only=not network.config.is_encoder_decoder,
            room=lengths.room,
        )
        notes = [*splits.notes, *notes]
        ready: dict[str, datasets.Dataset] = {}
        for name in rows:
            longest = lengths.target if name == TRAINING else lengths.reference
            inputs, cut = speller.sources(sources[name], lengths.source)
            notes += cut_note(cut, len(inputs), f"{name} inputs", lengths.source)
            labels, cut = speller.targets(targets[name], longest)
            notes += cut_note(cut, len(inputs), f"{name} targets", longest or 0)
            notes += check_vocabulary(network, tokenizer, flat(inputs, labels), self.name)
            order = range(len(inputs)) if name == TRAINING else by_length(inputs)
            sources[name] = [sources[name][number] for number in order]
            ready[name] = datasets.Dataset.from_dict(
                {"input_ids": [inputs[number] for number in order], "labels": [labels[number] for number in order]}
            )
        references = decoded(tokenizer, ready[EVALUATION]["labels"])

        def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
            return judge.score(*written_and_right(prediction, tokenizer, self.name))

        def describe(prediction: EvalPrediction) -> list[dict[str, Any]]:
            predicted, gold = written_and_right(prediction, tokenizer, self.name)
            check_order(gold == references, True, self.name)
            return [
                {"input": text, "gold": right, "predicted": written, "correct": written == right, **more}
                for text, right, written, more in zip(
                    sources[EVALUATION], gold, predicted, judge.each(predicted, gold), strict=True
                )
            ]

        def encode(text: str) -> dict[str, list[int]]:
            return {"input_ids": speller.sources([text], lengths.source)[0][0]}

        return Prepared(
            model=network,
            tokenizer=tokenizer,
            **splits.fields(ready),
            collator=cast("Any", speller.collator(network)),
            compute_metrics=compute_metrics,
            generation=generation,
            describe_predictions=describe,
            encode=encode,
            signatures=judge.signatures(),
            notes=tuple(dict.fromkeys(notes)),
        )

    def _speller(self, model: PreTrainedModel, tokenizer: Any) -> Speller:
        if not model.config.is_encoder_decoder:
            return PromptSpeller(tokenizer, self.chosen.prompt or self.prompt, self.name)
        source, target = self.languages or (None, None)
        speak(model, tokenizer, self.chosen.source_language or source, self.chosen.target_language or target, self.name)
        prefix = self.prefixes.get(model.config.model_type, "") if self.chosen.prefix is None else self.chosen.prefix
        return EncoderDecoderSpeller(tokenizer, prefix)

    def _lengths(self, model: PreTrainedModel, tokenizer: Any) -> _Lengths:
        """Return what fits the model; prompt and target share one line where there is no encoder."""
        chosen, most = self.chosen, capacity(model, tokenizer)
        source = chosen.max_source_length or self.max_source_length
        target = chosen.max_target_length or self.max_target_length
        limit = self.max_reference_length if chosen.max_reference_length is None else chosen.max_reference_length
        reference = limit or None
        if most is None:
            return _Lengths(source, target, reference, None)
        if model.config.is_encoder_decoder:
            return _Lengths(min(source, most), min(target, most), min(reference or most, most), most)
        source = min(source, most - target)
        if source < 1:
            raise TaskError(
                f"task {self.name!r}: targets of {target} tokens leave no room for a prompt in this model's {most}. "
                "Give a smaller max_target_length."
            )
        return _Lengths(source, target, min(reference or most, most - source), most - source)


@dataclass(frozen=True)
class _Lengths:
    """Tokens: that are read, learnt, that count of a reference (None for all), and that can be written."""

    source: int
    target: int
    reference: int | None
    room: int | None
