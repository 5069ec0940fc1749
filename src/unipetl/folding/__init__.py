"""Folds attachments into a model's own weights, so that they cost nothing at inference; and unfolds them, bit for bit."""

from unipetl.folding.checkpoint import write_checkpoint
from unipetl.folding.live import examine, fold, unfold
from unipetl.folding.report import Folding, Row

__all__ = ["Folding", "Row", "examine", "fold", "unfold", "write_checkpoint"]
