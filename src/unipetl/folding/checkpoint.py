"""Writes a folded model as a plain checkpoint, and reports success only after reading it back.

The folder appears at once and whole: everything is written beside it, read back with ``from_pretrained``, its
logits compared with the attached model's, and only then renamed.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unipetl.architectures import Architecture
from unipetl.errors import FoldError, StorageError
from unipetl.files import flush, refuse_taken
from unipetl.folding.live import fold, unfold
from unipetl.folding.report import Folding

#: File beside the checkpoint that says what was folded and how it was checked.
REPORT = "folding.json"
#: How far results may be apart, as a share of their largest value, by the dtype of the weights.
TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}


@dataclass(frozen=True)
class Written:
    """A checkpoint that has been written and read back.

    Attributes:
        path: its folder.
        folding: what was folded into what.
        difference: the largest difference between the attached model's results and the checkpoint's.
        scale: the largest of the attached model's results.
        tolerance: what ``difference / scale`` was allowed to be.
        parameters_before, parameters_after: sizes of the attached model, changes included, and of the checkpoint's.
    """

    path: Path
    folding: Folding
    difference: float
    scale: float
    tolerance: float
    parameters_before: int
    parameters_after: int

    def to_dict(self) -> dict[str, Any]:
        """Return what was written and how it was checked, as JSON-ready data."""
        return {
            "folding": self.folding.to_dict(),
            "difference": self.difference, "scale": self.scale, "tolerance": self.tolerance,
            "parameters_before": self.parameters_before, "parameters_after": self.parameters_after,
        }  # fmt: skip


def write_checkpoint(
    model: nn.Module,
    path: str | Path,
    calls: Sequence[Mapping[str, Tensor]],
    *,
    names: str | Sequence[str] | None = None,
    tolerance: float | None = None,
    dequantize: bool = False,
    architecture: Architecture | None = None,
    extras: Callable[[Path], object] | None = None,
) -> Written:
    """Fold, write a plain checkpoint, read it back and compare; the model itself is left as it was.

    Args:
        model: a transformers model with attachments.
        path: a folder that does not exist yet, or is empty.
        calls: arguments of the model, for which the results are compared; at least one.
        names: which of the active attachments; None is all.
        tolerance: how far results may be apart, as a share of the largest; None is by the dtype of the weights.
        dequantize: see [fold][unipetl.folding.fold].
        architecture: a table for a family that unipetl does not know.
        extras: writes further files, such as the tokenizer's, into the folder it is given.

    Raises:
        FoldError: something does not fold into a plain model, or the checkpoint computes something else.
        StorageError: the folder is taken, or the file system refuses. Nothing is left behind.
    """
    target = Path(path)
    refuse_taken(target, "a checkpoint")
    if not calls:
        raise FoldError("no arguments to compare results for; give at least one call.")
    before = _Results.of(model, calls)
    size_before = _size(model)
    folding = fold(model, names, plain=True, dequantize=dequantize, architecture=architecture)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        _save(model, temporary, folding)
        if extras is not None:
            extras(temporary)
        read_back = _load(model, temporary)
        allowed = TOLERANCES.get(_dtype(model), 1e-4) if tolerance is None else tolerance
        difference = before.compare(_Results.of(read_back, calls), allowed)
        written = Written(target, folding, difference, before.scale, allowed, size_before, _size(read_back))
        report = json.dumps(written.to_dict(), indent=2) + "\n"
        (temporary / REPORT).write_text(report, encoding="utf-8")
        _rename(temporary, target)
    except OSError as error:
        raise StorageError(f"cannot write {str(target)!r}: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        unfold(model)
    return written


class _Results:
    """What a model computes in evaluation for some calls."""

    def __init__(self, values: list[Tensor]) -> None:
        self.values = values
        self.scale = max(float(value.abs().max()) for value in values)

    @classmethod
    def of(cls, model: nn.Module, calls: Sequence[Mapping[str, Tensor]]) -> _Results:
        training = model.training
        model.eval()
        try:
            with torch.no_grad():
                found = [_results(model(**call)) for call in calls]
        finally:
            model.train(training)
        return cls([value for values in found for value in values])

    def compare(self, other: _Results, tolerance: float) -> float:
        """Return the largest difference.

        Raises:
            FoldError: it is more than ``tolerance`` times the largest value, or is not a number.
        """
        shapes = [tuple(value.shape) for value in self.values], [tuple(value.shape) for value in other.values]
        if shapes[0] != shapes[1]:
            raise FoldError(f"the checkpoint's results have shapes {shapes[1]} instead of {shapes[0]}.")
        gap = max(float((a - b).abs().max()) for a, b in zip(self.values, other.values, strict=True))
        if not gap <= tolerance * self.scale:
            raise FoldError(
                "the checkpoint that was written and read back computes something else: results up to "
                f"{self.scale:.3g} differ by up to {gap:.3g}, and {tolerance * self.scale:.3g} is allowed. "
                "It was removed again."
            )
        return gap


def _results(output: Any) -> list[Tensor]:
    names = ("logits", "start_logits", "end_logits", "last_hidden_state")
    found = [output[name].double() for name in names if name in output]
    if not found:
        raise FoldError(f"the model returns no logits or hidden states to compare, only {', '.join(output)}.")
    return found


def _save(model: Any, folder: Path, folding: Folding) -> None:
    if not hasattr(model, "save_pretrained"):
        raise FoldError(f"{type(model).__name__} is no transformers model: it has no save_pretrained.")
    if folding.settings.get("tie_word_embeddings") is False:
        # What is tied no longer must not be written once for both.
        model.save_pretrained(folder, state_dict={k: v.detach().clone() for k, v in model.state_dict().items()})
    else:
        model.save_pretrained(folder)


def _load(model: Any, folder: Path) -> nn.Module:
    device = next(model.parameters()).device
    kind: Any = type(model)
    loaded, info = kind.from_pretrained(
        folder, dtype=_dtype(model), local_files_only=True, output_loading_info=True,
        attn_implementation=model.config._attn_implementation,
    )  # fmt: skip
    wrong = [*info["missing_keys"], *info["unexpected_keys"], *info["mismatched_keys"]]
    if wrong:
        raise FoldError(
            f"the checkpoint cannot be read back as a {kind.__name__}: {len(wrong)} parameters do not fit, "
            f"{wrong[0]!r} for one. It was removed again."
        )
    return loaded.to(device)


def _dtype(model: nn.Module) -> torch.dtype:
    return next(p.dtype for p in model.parameters() if p.is_floating_point())


def _size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _rename(temporary: Path, target: Path) -> None:
    for file in temporary.iterdir():
        if file.is_file():
            flush(file)
    if target.is_dir():
        target.rmdir()
    temporary.replace(target)
    flush(target.parent)
