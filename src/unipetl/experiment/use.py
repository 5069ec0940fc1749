"""What a finished run is good for: scoring it again, predicting lines of one's own, and a plain checkpoint."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from unipetl.errors import RunError
from unipetl.experiment.directory import RunDirectory, read_lines, write_lines
from unipetl.experiment.recipe import Recipe
from unipetl.experiment.running import few_examples, final_evaluation, make_trainer, prepare, training_arguments
from unipetl.folding import Written, write_checkpoint
from unipetl.storage import load
from unipetl.tasks import Prepared, Task, get_task

BATCH = 32


def evaluate(run_dir: str | Path, *, limit: int | None = None, task: Task | None = None) -> dict[str, float]:
    """Score a run's saved adapter again on the task's evaluation data.

    Args:
        run_dir: a run's directory; the run must be finished.
        limit: at most so many examples; None for as many as the recipe says.
        task: the task itself, where it is not one of unipetl's.

    Returns:
        Every metric, the task's own first.

    Raises:
        RunError: this is no finished run.
        CorruptFileError, MismatchError: its adapter is damaged or belongs to another base.
    """
    recipe, seed, chosen, prepared = _open(run_dir, task, limit, whole=True)
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(training_arguments(recipe, seed, prepared, chosen, Path(folder)), prepared, chosen)
        metrics, _ = final_evaluation(trainer, prepared, chosen)
    return {chosen.metric: metrics.pop(chosen.metric), **metrics}


def predict(
    run_dir: str | Path,
    inputs: Sequence[str] | Path | None = None,
    *,
    output: str | Path | None = None,
    task: Task | None = None,
) -> list[dict[str, Any]]:
    """Return what a run's model predicts, one row per input.

    Args:
        run_dir: a run's directory; the run must be finished.
        inputs: texts, or a file with one on each line (empty lines are left out); None for the predictions
            that the run made on its evaluation data.
        output: a file to write the rows to, as JSON lines.
        task: the task itself, where it is not one of unipetl's.

    Returns:
        Rows with ``input`` and ``predicted``; for classification also ``probability``.

    Raises:
        RunError: this is no finished run, or there are no inputs.
        TaskError: the task cannot read an input.
    """
    if inputs is None:
        files = _finished(run_dir)
        rows = read_lines(files.predictions)
    else:
        texts = _texts(inputs)
        _, _, chosen, prepared = _open(run_dir, task, 1)
        rows = [row for batch in _batches(texts) for row in _predict(batch, prepared, chosen)]
    if output is not None:
        write_lines(Path(output), rows)
    return rows


def fold_run(
    run_dir: str | Path,
    path: str | Path,
    *,
    examples: int = 8,
    tolerance: float | None = None,
    dequantize: bool = False,
    task: Task | None = None,
) -> Written:
    """Write a run's model with its attachment folded in, as a checkpoint that needs no unipetl.

    The checkpoint is read back, and its logits on evaluation examples are compared, before it gets its name.

    Args:
        run_dir: a run's directory; the run must be finished.
        path: a folder that does not exist yet, or is empty; the tokenizer is written there too.
        examples: how many evaluation examples to compare.
        tolerance: how far results may be apart, as a share of the largest; None is by the dtype of the weights.
        dequantize: replace quantised modules that are in the way by dense ones of the same values.
        task: the task itself, where it is not one of unipetl's.

    Raises:
        RunError: this is no finished run, or it trained nothing.
        FoldError: its method does not fold into a plain model; the message says what does not, and why.
        StorageError: the folder is taken, or the file system refuses. Nothing is left behind.
    """
    recipe, _, _, prepared = _open(run_dir, task, examples)
    if recipe.zero_shot:
        raise RunError(f"the run in {str(run_dir)!r} is zero-shot: there is no attachment to fold.")
    rows = [prepared.evaluation[place] for place in range(min(examples, len(prepared.evaluation)))]
    batch = {name: value for name, value in prepared.collator(rows).items() if isinstance(value, torch.Tensor)}
    save: Callable[[Path], object] = prepared.tokenizer.save_pretrained
    return write_checkpoint(
        prepared.model, path, [batch],
        tolerance=tolerance, dequantize=dequantize, extras=lambda folder: save(folder),
    )  # fmt: skip


def _finished(run_dir: str | Path) -> RunDirectory:
    files = RunDirectory(Path(run_dir))
    files.read_recipe()
    if files.result() is None:
        raise RunError(f"the run in {str(files.path)!r} is not finished; run its recipe there again to finish it.")
    return files


def _open(
    run_dir: str | Path, task: Task | None, evaluation_limit: int | None, *, whole: bool = False
) -> tuple[Recipe, int, Task, Prepared]:
    """Open a finished run on so many evaluation examples; ``whole`` leaves its training examples and None its own."""
    files = _finished(run_dir)
    recipe, seed = files.read_recipe()
    chosen = (task or get_task(recipe.task)).configure(recipe.options)
    if not whole and evaluation_limit is not None:
        recipe = few_examples(recipe, chosen, evaluation_limit)
    elif evaluation_limit is not None:
        recipe = recipe.model_copy(update={"evaluation_limit": evaluation_limit})
    prepared = prepare(recipe, seed, chosen)
    if not recipe.zero_shot:
        load(prepared.model, files.adapter)
    return recipe, seed, chosen, prepared


def _texts(inputs: Sequence[str] | Path) -> list[str]:
    if isinstance(inputs, str):
        raise RunError("inputs: expected a list of texts or a Path; wrap one text as [text] and a file's name as Path.")
    if isinstance(inputs, Path):
        try:
            lines = inputs.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or error
            raise RunError(f"cannot read the inputs in {str(inputs)!r}: {why}.") from error
        inputs = [line.strip() for line in lines if line.strip()]
    if not inputs:
        raise RunError("there are no inputs to predict.")
    return list(inputs)


def _batches(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(texts), BATCH):
        yield texts[start : start + BATCH]


def _predict(texts: Sequence[str], prepared: Prepared, task: Task) -> list[dict[str, Any]]:
    model, tokenizer = prepared.model.eval(), prepared.tokenizer
    batch = prepared.collator([prepared.row(text) for text in texts])
    batch = {name: value.to(model.device) for name, value in batch.items() if isinstance(value, torch.Tensor)}
    with torch.inference_mode():
        if task.kind != "classification":
            written = model.generate(**batch, **(prepared.generation or {}))
            if not model.config.is_encoder_decoder:  # which repeats what it read
                written = written[:, batch["input_ids"].shape[1] :]
            decoded = [tokenizer.decode(ids, skip_special_tokens=True) for ids in written.tolist()]
            return [{"input": text, "predicted": found} for text, found in zip(texts, decoded, strict=True)]
        chances = model(**batch).logits.softmax(-1)
    names = model.config.id2label
    best = chances.max(-1)
    return [
        {"input": text, "predicted": names[int(label)], "probability": round(float(chance), 6)}
        for text, label, chance in zip(texts, best.indices, best.values, strict=True)
    ]
