"""One run: a recipe and a seed in, a directory that a person can read out.

It can be killed at any time and called again: it goes on from its last checkpoint, and one that is done is
returned as it is.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from transformers import EvalPrediction, PrinterCallback, Seq2SeqTrainer, Trainer, TrainingArguments, set_seed

from unipetl.attaching import attach, attachments
from unipetl.errors import PetlError, RunError
from unipetl.experiment import arguments, surroundings
from unipetl.experiment.directory import RunDirectory, RunResult, read_lines, write_json, write_lines
from unipetl.experiment.lock import alone
from unipetl.experiment.log import Log
from unipetl.experiment.progress import Listener, Progress, silent
from unipetl.experiment.recipe import Recipe
from unipetl.experiment.trainer import PetlSeq2SeqTrainer, PetlTrainer, last_checkpoint
from unipetl.planning import Plan
from unipetl.storage import save
from unipetl.tasks import Prepared, Task, get_task


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
    chosen = task or get_task(recipe.task)
    if chosen.name != recipe.task:
        raise RunError(f"the recipe names the task {recipe.task!r}, and the task given is {chosen.name!r}.")
    files = RunDirectory(Path(directory))
    files.check(recipe, seed)
    done = files.result() if resume else None
    if done is None:
        with alone(files.path):
            done = _Run(recipe, seed, files, chosen, listener, resume).whole()
    listener(Progress("done", values={done.metric: done.score}))
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
        base_parameters = sum(one.numel() for one in prepared.model.parameters())
        plan = self._attach(prepared)
        given = training_arguments(self.recipe, self.seed, prepared, self.task, self.files.checkpoints)
        with self._begun():
            trainer = make_trainer(given, prepared, self.task)
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
        write_json(self.files.metrics, result.to_dict())
        shutil.rmtree(self.files.checkpoints, ignore_errors=True)
        return result

    @contextmanager
    def _begun(self) -> Iterator[None]:
        """Write the first files, and say what transformers finds wrong only while it works.

        A new run that it gives up before the first checkpoint leaves nothing, so that mended arguments may follow.
        """
        new = not self.files.recipe.exists()
        self.files.claim(self.recipe, self.seed)
        if not self.resume:
            self.files.empty()
        write_json(self.files.environment, surroundings.describe(self.seed))
        try:
            yield
        except PetlError:
            raise
        except (ValueError, KeyError, ImportError) as error:
            if new and last_checkpoint(self.files.checkpoints) is None:
                self.files.empty()
                self.files.recipe.unlink()
            why = error.args[0] if isinstance(error, KeyError) and error.args else error  # a KeyError quotes itself
            raise RunError(f"training: transformers gave up with {type(error).__name__}: {why}") from error

    def _attach(self, prepared: Prepared) -> Plan | None:
        method = self.recipe.parsed()
        if method is None:
            return None
        self.listener(Progress("attach"))
        return attach(prepared.model, method, seed=self.seed, train_head=self.recipe.train_head).plan

    def _train(self, trainer: Trainer) -> tuple[int, float]:
        checkpoint = last_checkpoint(self.files.checkpoints)
        step = int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0
        kept = [row for row in read_lines(self.files.log) if row["step"] <= step] if checkpoint else []
        write_lines(self.files.log, kept)
        before = max((row["seconds"] for row in kept), default=0.0)
        log = Log(self.files.log, self.listener, before)
        trainer.add_callback(log)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        return trainer.state.global_step, log.seconds()


def prepare(recipe: Recipe, seed: int, task: Task) -> Prepared:
    """Return the recipe's task, ready to run."""
    return task.prepare(model=recipe.model, limit=recipe.limit, evaluation_limit=recipe.evaluation_limit, seed=seed)


def training_arguments(recipe: Recipe, seed: int, prepared: Prepared, task: Task, folder: Path) -> TrainingArguments:
    """Return a run's training arguments; how a task generates is taken from it where the recipe does not say.

    Raises:
        RunError: transformers refuses them.
    """
    training = dict(recipe.training)
    generates = task.kind == "seq2seq"
    if generates and prepared.generation:
        training.setdefault("generation_num_beams", prepared.generation.get("num_beams"))
        training.setdefault("generation_max_length", prepared.generation.get("max_length"))
    return arguments.build(training, folder, seed, generates=generates)


def make_trainer(given: TrainingArguments, prepared: Prepared, task: Task) -> Trainer:
    """Return the Trainer of a run: unipetl's where there is an attachment, transformers' for zero-shot."""
    generates = task.kind == "seq2seq"
    attached = bool(attachments(prepared.model))
    kinds: dict[tuple[bool, bool], type[Trainer]] = {
        (True, True): PetlSeq2SeqTrainer,
        (True, False): Seq2SeqTrainer,
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
        eval_dataset=prepared.evaluation,
        data_collator=prepared.collator,
        compute_metrics=prepared.compute_metrics,
    )
    trainer.remove_callback(PrinterCallback)  # the log goes to log.jsonl and the listener
    return trainer


def final_evaluation(trainer: Trainer, prepared: Prepared, task: Task) -> tuple[dict[str, float], EvalPrediction]:
    """Return the metrics on the evaluation data, and the predictions in its order.

    Raises:
        RunError: the task's own metric is not among them.
    """
    trainer.args.train_sampling_strategy = "random"  # grouping by length would reorder the evaluation as well
    output = trainer.predict(prepared.evaluation, metric_key_prefix="final")
    found = {name.removeprefix("final_"): value for name, value in (output.metrics or {}).items()}
    timing = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time", "jit_compilation_time")
    metrics = {name: float(value) for name, value in found.items() if name not in timing}
    if task.metric not in metrics:
        raise RunError(f"task {task.name!r} is judged by {task.metric!r}, and computed only {', '.join(metrics)}.")
    if output.label_ids is None:
        raise RunError(f"task {task.name!r}: its evaluation data has no labels to judge predictions by.")
    return metrics, EvalPrediction(predictions=output.predictions, label_ids=output.label_ids)
