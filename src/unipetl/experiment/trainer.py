"""transformers' Trainer, with checkpoints that hold what is trained and nothing else.

A checkpoint is the attachment's two files, the optimizer, the scheduler, the random states and the
trainer's state. The base model is never written: ``unipetl.load(base, checkpoint)`` reads one like any
saved attachment, and resuming copies its tensors into the attachment the model already has.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from accelerate.data_loader import prepare_data_loader
from torch import nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from unipetl import saved, storage
from unipetl.attaching import Attachment, attachments
from unipetl.errors import RunError, StorageError
from unipetl.experiment.batches import TokenBudget, row_lengths
from unipetl.experiment.writing_trainer import WritingTrainer

#: transformers' name for the file a checkpoint is complete with: it is written last.
STATE_FILE = "trainer_state.json"
#: What a checkpoint consists of; of the random states there is one file per process.
CHECKPOINT_FILES = (saved.DESCRIPTION, saved.TENSORS, "optimizer.pt", "scheduler.pt", "rng_state*.pth", STATE_FILE)
#: What PyTorch's writer says, in a RuntimeError, where the operating system took no more; there is no OSError then.
WRITER_FAILED = ("PytorchStreamWriter failed", "inline_container.cc")


class _Epochs(TrainerCallback):
    """Tells batches their epoch; older transformers forget it where a run goes on within one."""

    batches: TokenBudget | None = None

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.batches is not None:
            steps = -(-len(self.batches) // args.gradient_accumulation_steps)
            self.batches.set_epoch(state.global_step // steps)


class _TokenBatches(Trainer):
    """Batches of a budget of tokens, where one is given."""

    def __init__(self, *args: Any, max_tokens_per_batch: int | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._max_tokens = max_tokens_per_batch
        self._epochs = _Epochs()
        self.add_callback(self._epochs)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return transformers' own loader, or one with batches of at most so many tokens.

        Raises:
            RunError: the data set cannot be counted, or an example alone is above the budget.
        """
        if self._max_tokens is None:
            return super().get_train_dataloader()
        data: Any = self.train_dataset
        config = getattr(self.model, "config", None)
        encodes = bool(getattr(config, "is_encoder_decoder", False))
        batches = TokenBudget(
            row_lengths(data, encoder_decoder=encodes),
            self._max_tokens,
            seed=self.args.data_seed if self.args.data_seed is not None else self.args.seed,
            processes=self.args.world_size,
            process=self.args.process_index,
        )
        self._epochs.batches = batches
        plain = super().get_train_dataloader()
        loader = DataLoader(
            plain.dataset,
            batch_sampler=batches,
            collate_fn=plain.collate_fn,
            num_workers=plain.num_workers,
            pin_memory=plain.pin_memory,
            worker_init_fn=plain.worker_init_fn,
            persistent_workers=plain.persistent_workers,
            prefetch_factor=plain.prefetch_factor,
        )
        # The batches are this process's already: nothing is left to share out.
        return prepare_data_loader(loader, self.args.device, num_processes=1, process_index=0, put_on_device=True)


class _TrainedTensorsOnly(_TokenBatches):
    """Where the Trainer reads and writes a model, read and write its attachment."""

    def __init__(self, *args: Any, attachment: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._attachment = attachment
        self._trained()
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise RunError(
                f"{type(self).__name__} writes whole tensors, and FSDP or DeepSpeed split them over processes; "
                "train with transformers' Trainer there, whose own checkpoints fit the split."
            )

    def _trained(self) -> Attachment:
        model = self.model
        found = {one.name: one for one in attachments(model)} if isinstance(model, nn.Module) else {}
        if self._attachment is None and len(found) == 1:
            return next(iter(found.values()))
        if self._attachment in found:
            return found[self._attachment]
        trainer = type(self).__name__
        if not found:
            raise RunError(
                f"{trainer}: {type(model).__name__} has no attachment, so there would be nothing to train or save. "
                "Call unipetl.attach(model, method) first."
            )
        listed = ", ".join(map(repr, found))
        asked = "which one is trained?" if self._attachment is None else f"there is none called {self._attachment!r}."
        raise RunError(f"{trainer}: the model has the attachments {listed}; {asked} Pass attachment=.")

    def _restore(self, folder: str) -> None:
        trained = self._trained()
        storage.reload(trained.model, folder, name=trained.name)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        if self.args.should_save:
            trained = self._trained()
            storage.save(trained.model, output_dir or self.args.output_dir or ".", name=trained.name)

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        try:
            super()._save_checkpoint(*args, **kwargs)
        except RuntimeError as error:
            if not any(words in str(error) for words in WRITER_FAILED):
                raise
            raise StorageError(
                f"cannot write a checkpoint in {self.args.output_dir!r}: PyTorch's writer failed "
                f"({str(error).splitlines()[0]}). Most likely the disk is full; with room there, the same command "
                "goes on from the last whole checkpoint."
            ) from error

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        folder = Path(resume_from_checkpoint)
        missing = [name for name in CHECKPOINT_FILES if not _present(folder, name)]
        if missing:
            raise RunError(
                f"cannot resume from {str(folder)!r}: it has no {missing[0]}. Expected a checkpoint of "
                f"{type(self).__name__} with {', '.join(CHECKPOINT_FILES)}."
            )
        self._restore(resume_from_checkpoint)

    def _load_best_model(self) -> None:
        assert self.state.best_model_checkpoint is not None  # the Trainer asks only where there is one
        self._restore(self.state.best_model_checkpoint)


class PetlTrainer(_TrainedTensorsOnly):
    """A ``transformers.Trainer`` whose checkpoints hold the trained tensors alone.

    Everything else is transformers': arguments, callbacks, schedules, ``resume_from_checkpoint``,
    ``load_best_model_at_end``. A resumed run ends where an uninterrupted one does, bit for bit on a CPU.

    Args:
        *args: as for ``transformers.Trainer``.
        attachment: which attachment of the model is trained; None if there is only one.
        max_tokens_per_batch: fill training batches with examples of like length up to so many tokens, padding included,
            in place of ``per_device_train_batch_size`` examples; see [unipetl.experiment.batches][].
        **kwargs: as for ``transformers.Trainer``.

    Raises:
        RunError: the model has no such attachment.

    Example::

        unipetl.attach(model, "lora(rank=8)")
        PetlTrainer(model=model, args=TrainingArguments("out"), train_dataset=data).train()
    """


class PetlSeq2SeqTrainer(_TrainedTensorsOnly, WritingTrainer):
    """A ``transformers.Seq2SeqTrainer`` whose checkpoints hold the trained tensors alone; see [PetlTrainer][].

    Models without encoder can be trained and generated from as well, on rows of a prompt and a target; see
    [unipetl.tasks.prompted][].
    """


def last_checkpoint(folder: Path) -> Path | None:
    """Return the latest complete checkpoint in ``folder``, or None.

    One that a killed process left half written, or whose attachment is damaged, is passed over.
    """
    found = [(int(path.name.rpartition("-")[2]), path) for path in folder.glob("checkpoint-*") if _numbered(path)]
    for _, path in sorted(found, reverse=True):
        if all(_present(path, name) for name in CHECKPOINT_FILES):
            try:
                saved.read(path)
            except StorageError:
                continue
            return path
    return None


def _present(folder: Path, name: str) -> bool:
    return any(file.is_file() and file.stat().st_size for file in folder.glob(name))


def _numbered(path: Path) -> bool:
    return path.is_dir() and path.name.rpartition("-")[2].isdigit()
