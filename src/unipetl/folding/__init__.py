"""Folds attachments into a model's own weights, so that they cost nothing at inference; unfolds them bit for bit."""

from unipetl.folding.checkpoint import Written, write_checkpoint
from unipetl.folding.live import examine, fold, unfold
from unipetl.folding.report import Folding, Row

__all__ = ["Folding", "Row", "Written", "examine", "fold", "unfold", "write_checkpoint"]
