"""One run: a recipe and a seed in, a directory that a person can read out.

It can be killed at any time and called again: it goes on from its last checkpoint, and one that is done is
returned as it is.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import EvalPrediction, PrinterCallback, Trainer, TrainingArguments, set_seed
from transformers.trainer_utils import PredictionOutput

from unipetl.attaching import attach, attachments
from unipetl.errors import PetlError, RunError
from unipetl.experiment import arguments, surroundings
from unipetl.experiment.directory import RunDirectory, RunResult, read_lines, write_json, write_lines
from unipetl.experiment.divergence import loss_note
from unipetl.experiment.lock import alone
from unipetl.experiment.log import Log
from unipetl.experiment.progress import Listener, Progress, silent
from unipetl.experiment.recipe import Recipe
from unipetl.experiment.trainer import PetlSeq2SeqTrainer, PetlTrainer, last_checkpoint
from unipetl.experiment.writing_trainer import WritingTrainer
from unipetl.planning import Plan
from unipetl.storage import save
from unipetl.tasks import Prepared, Task, get_task

#: What the loss is called where checkpoints are compared by it.
LOSS = ("loss", "eval_loss")
#: What the Trainer puts among its metrics and is none.
TIMING = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time", "jit_compilation_time")


def run(
    recipe: Recipe,
    seed: int,
    directory: str | Path,
    *,
    progress: Listener | None = None,
    resume: bool = True,
    task: Task | None = None,
) -> RunResult:
    """Train and evaluate ``recipe`` with ``seed`` in ``directory``.

    Args:
        recipe: what to do.
        seed: initial values, data order and dropout depend on it.
        directory: made if absent. The same recipe's unfinished run goes on; its finished run is returned at once.
        progress: called as the run goes on.
        resume: False starts again from nothing.
        task: the task itself, where it is not one of unipetl's; ``recipe.task`` must be its name.

    Raises:
        RunError: the directory holds something else or another process is at work there, or the training
            arguments fit no training.
        PlanError, TaskError, DownloadError: the method, the task or its data cannot be used. Like wrong training
            arguments, that is found before anything is written.
    """
    listener = progress or silent
    chosen = (task or get_task(recipe.task)).configure(recipe.options)
    if chosen.name != recipe.task:
        raise RunError(f"the recipe names the task {recipe.task!r}, and the task given is {chosen.name!r}.")
    files = RunDirectory(Path(directory))
    files.check(recipe, seed)
    done = files.result() if resume else None
    if done is None:
        with alone(files.path):
            done = _Run(recipe, seed, files, chosen, listener, resume).whole()
    note = loss_note(read_lines(files.log), done)
    listener(Progress("done", values={done.metric: done.score}, note=note))
    return done


@dataclass
class _Run:
    recipe: Recipe
    seed: int
    files: RunDirectory
    task: Task
    listener: Listener
    resume: bool

    def whole(self) -> RunResult:
        self.listener(Progress("prepare"))
        surroundings.forget_peak_memory()
        set_seed(self.seed)
        prepared = prepare(self.recipe, self.seed, self.task)
        for note in prepared.notes:
            self.listener(Progress("prepare", note=note))
        base_parameters = sum(one.numel() for one in prepared.model.parameters())
        plan = self._attach(prepared)
        given = training_arguments(self.recipe, self.seed, prepared, self.task, self.files.checkpoints)
        with self._begun(prepared, plan):
            trainer = make_trainer(given, prepared, self.task, arguments.own(self.recipe.training))
            steps, seconds = self._train(trainer) if plan is not None else (0, 0.0)
            self.listener(Progress("evaluate", total=len(prepared.evaluation)))
            started = time.perf_counter()
            metrics, prediction = final_evaluation(trainer, prepared, self.task)
            evaluate_seconds = time.perf_counter() - started
        self.listener(Progress("save"))
        if plan is not None:
            save(prepared.model, self.files.adapter)
        write_lines(self.files.predictions, prepared.describe_predictions(prediction))
        result = RunResult(
            path=self.files.path,
            recipe=self.recipe.hash(),
            task=self.task.name,
            method=self.recipe.method_text(),
            seed=self.seed,
            metric=self.task.metric,
            score=metrics[self.task.metric],
            greater_is_better=self.task.greater_is_better,
            metrics=metrics,
            parameters=plan.parameters if plan else 0,
            paper_parameters=plan.paper_parameters if plan else 0,
            share=plan.share if plan else 0.0,
            base_parameters=base_parameters,
            steps=steps,
            train_seconds=seconds,
            evaluate_seconds=round(evaluate_seconds, 3),
            peak_memory_bytes=surroundings.peak_memory(),
        )
        self._describe(prepared, loss_note(read_lines(self.files.log), result))
        write_json(self.files.metrics, result.to_dict())
        shutil.rmtree(self.files.checkpoints, ignore_errors=True)
        return result

    @contextmanager
    def _begun(self, prepared: Prepared, plan: Plan | None) -> Iterator[None]:
        """Write the first files, and say what transformers finds wrong only while it works.

        A new run that is given up before the first checkpoint leaves nothing, so that mended arguments may follow.
        """
        new = not self.files.recipe.exists()
        self.files.claim(self.recipe, self.seed)
        if not self.resume:
            self.files.empty()
        self._describe(prepared)
        if plan is not None:
            write_json(self.files.plan, {**plan.to_dict(), "head": list(plan.head)})
        try:
            yield
        except (PetlError, ValueError, KeyError, ImportError) as error:
            if new and last_checkpoint(self.files.checkpoints) is None:
                self.files.empty()
                self.files.recipe.unlink()
            if isinstance(error, PetlError):
                raise
            why = error.args[0] if isinstance(error, KeyError) and error.args else error  # a KeyError quotes itself
            raise RunError(f"training: transformers gave up with {type(error).__name__}: {why}") from error

    def _describe(self, prepared: Prepared, *more: str) -> None:
        """Write what the run works on, and its notes with those that are not empty of ``more``."""
        notes = [*prepared.notes, *filter(None, more)]
        told: dict[str, Any] = {"notes": notes, "metrics": dict(prepared.signatures)}
        if self.recipe.model is not None:  # which a relative name does not tell by itself later
            told["base_is_folder"] = Path(self.recipe.model).exists()
        write_json(self.files.environment, {**surroundings.describe(self.seed), **told})

    def _attach(self, prepared: Prepared) -> Plan | None:
        method = self.recipe.parsed()
        if method is None:
            return None
        self.listener(Progress("attach"))
        return attach(prepared.model, method, seed=self.seed, train_head=self.recipe.train_head).plan

    def _train(self, trainer: Trainer) -> tuple[int, float]:
        checkpoint = last_checkpoint(self.files.checkpoints)
        step = int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0
        rows = read_lines(self.files.log) if checkpoint else []
        kept = [row for row in rows if isinstance(row.get("step"), int) and row["step"] <= step]
        write_lines(self.files.log, kept)
        before = max((row["seconds"] for row in kept if isinstance(row.get("seconds"), (int, float))), default=0.0)
        log = Log(self.files.log, self.listener, before)
        trainer.add_callback(log)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        return trainer.state.global_step, log.seconds()


def prepare(recipe: Recipe, seed: int, task: Task) -> Prepared:
    """Return the recipe's task, ready to run."""
    return task.prepare(model=recipe.model, limit=recipe.limit, evaluation_limit=recipe.evaluation_limit, seed=seed)


def few_examples(recipe: Recipe, task: Task, evaluation_limit: int = 1) -> Recipe:
    """Return the recipe with as few examples as give the same model; ``task`` is configured with its options."""
    limits = {name: value for name, value in task.few(evaluation_limit).items() if value is not None}
    return recipe.model_copy(update=limits)


def training_arguments(recipe: Recipe, seed: int, prepared: Prepared, task: Task, folder: Path) -> TrainingArguments:
    """Return a run's training arguments; how a task generates is taken from it where the recipe does not say.

    Raises:
        RunError: transformers refuses them.
    """
    training = _chosen_by(task, dict(recipe.training))
    generates = task.kind == "seq2seq"
    if generates and prepared.generation:
        training.setdefault("generation_num_beams", prepared.generation.get("num_beams"))
        training.setdefault("generation_max_length", prepared.generation.get("max_length"))
    return arguments.build(training, folder, seed, generates=generates)


def make_trainer(
    given: TrainingArguments, prepared: Prepared, task: Task, own: Mapping[str, Any] | None = None
) -> Trainer:
    """Return the Trainer of a run: unipetl's where there is an attachment, transformers' for zero-shot.

    Args:
        given: transformers' arguments.
        prepared: the task, made ready.
        task: the task.
        own: unipetl's arguments, see [OWN][unipetl.experiment.arguments.OWN]; they are about training alone.
    """
    generates = task.kind == "seq2seq"
    attached = bool(attachments(prepared.model))
    kinds: dict[tuple[bool, bool], type[Trainer]] = {
        (True, True): PetlSeq2SeqTrainer,
        (True, False): WritingTrainer,
        (False, True): PetlTrainer,
        (False, False): Trainer,
    }
    if generates and prepared.generation:
        for name, value in prepared.generation.items():
            setattr(prepared.model.generation_config, name, value)
    trainer = kinds[generates, attached](
        model=prepared.model,
        args=given,
        train_dataset=prepared.train,
        eval_dataset=prepared.evaluation if prepared.development is None else prepared.development,
        data_collator=prepared.collator,
        compute_metrics=prepared.compute_metrics,
        preprocess_logits_for_metrics=prepared.reduce_logits,
        **(own or {} if attached else {}),
    )
    if generates and trainer.args.load_best_model_at_end and trainer.args.metric_for_best_model in LOSS:
        trainer.compute_metrics = None  # the loss needs no texts: nothing is generated before the final evaluation
    trainer.remove_callback(PrinterCallback)  # the log goes to log.jsonl and the listener
    return trainer


def _chosen_by(task: Task, training: dict[str, Any]) -> dict[str, Any]:
    """Let the task say what checkpoints are compared by, where the recipe asks for the best one and names nothing."""
    if training.get("load_best_model_at_end") and "metric_for_best_model" not in training:
        training["metric_for_best_model"] = task.selection or task.metric
    if training.get("metric_for_best_model") == task.metric:
        training.setdefault("greater_is_better", task.greater_is_better)
    return training


def final_evaluation(trainer: Trainer, prepared: Prepared, task: Task) -> tuple[dict[str, float], EvalPrediction]:
    """Return the metrics on the evaluation data, and the predictions in its order.

    What the task scores besides (``Prepared.also``) is among the metrics, with its name behind theirs.

    Raises:
        RunError: the task's own metric is not among them.
    """
    trainer.args.train_sampling_strategy = "random"  # grouping by length would reorder the evaluation as well
    trainer.compute_metrics = prepared.compute_metrics
    output = trainer.predict(prepared.evaluation, metric_key_prefix="final")
    metrics = _metrics(output)
    if task.metric not in metrics:
        raise RunError(f"task {task.name!r} is judged by {task.metric!r}, and computed only {', '.join(metrics)}.")
    if output.label_ids is None:
        raise RunError(f"task {task.name!r}: its evaluation data has no labels to judge predictions by.")
    for name, rows in prepared.also.items():
        more = _metrics(trainer.predict(rows, metric_key_prefix="final"))
        metrics |= {f"{metric}_{name}": value for metric, value in more.items()}
    return metrics, EvalPrediction(predictions=output.predictions, label_ids=output.label_ids)


def _metrics(output: PredictionOutput) -> dict[str, float]:
    found = {name.removeprefix("final_"): value for name, value in (output.metrics or {}).items()}
    return {name: float(value) for name, value in found.items() if name not in TIMING}
