"""A user's own texts with labels, in CSV, TSV, JSON lines or Parquet.

Columns ``text`` and ``label`` unless the options name others; ``text_pair`` makes it pairs. The labels are those that
the training examples have, unless the options list them.
"""

from __future__ import annotations

from typing import final

from unipetl.tasks.classifying import Classification
from unipetl.tasks.sources import Judged


@final
class CsvClassification(Classification):
    """Text -> one of the labels in a file."""

    name = "csv-classification"
    description = "your own texts with labels, from CSV, TSV, JSON lines or Parquet"
    judged: Judged = "test"
