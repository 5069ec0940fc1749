"""A user's own pairs of texts, in JSON lines, CSV, TSV or Parquet.

Columns ``source`` and ``target`` unless the options name others. Judged by ``rouge2``, ``sacrebleu`` or
``exact_match``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, final

from unipetl.tasks.judging import EXACT, SUMMARIES, TRANSLATIONS, Judge
from unipetl.tasks.writing import Writing


@final
class Seq2Seq(Writing):
    """Text -> text, from a file."""

    name = "seq2seq"
    description = "your own pairs of texts: summaries, translations, answers"
    judges: ClassVar[Mapping[str, Judge]] = {
        "rouge2": SUMMARIES,
        "rouge1": SUMMARIES,
        "rougeL": SUMMARIES,
        "rougeLsum": SUMMARIES,
        "sacrebleu": TRANSLATIONS,
        "exact_match": EXACT,
    }
    beams: ClassVar[Mapping[str, Any]] = {"num_beams": 4, "max_length": 128}
