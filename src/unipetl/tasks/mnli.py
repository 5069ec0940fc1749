"""MNLI: does a sentence follow from another, contradict it, or neither? The paper's larger classification task.

392,702 pairs to learn from (Williams et al. 2018, as in GLUE); the paper judges on the 9,815 of the matched development
set. The 9,832 of the mismatched one, from other kinds of text, are scored beside them as ``accuracy_mismatched``; with
local files, name it by ``also: {mismatched: FILE}``. Examples that have no agreed label (-1) are not in GLUE's files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, final

from unipetl.tasks.classifying import Classification
from unipetl.tasks.hub import Hub


@final
class Mnli(Classification):
    """Premise and hypothesis -> entailment, neutral or contradiction."""

    name = "mnli"
    description = "does one sentence follow from another (GLUE MNLI), from RoBERTa"
    hub = Hub("nyu-mll/glue", "mnli", splits={"validation": "validation_matched", "test": "test_matched"})
    also: ClassVar[Mapping[str, str]] = {"mismatched": "validation_mismatched"}
    default_model = "FacebookAI/roberta-base"
    text = "premise"
    text_pair = "hypothesis"
    labels = ("entailment", "neutral", "contradiction")
