"""SST-2: is a phrase of a film review positive? The paper's smaller classification task.

67,349 phrases to learn from and 872 sentences to judge on, as in GLUE (Wang et al. 2018) after the Stanford Sentiment
Treebank (Socher et al. 2013). The labels of GLUE's test set are not public, so the paper reports the development set.
"""

from __future__ import annotations

from typing import final

from unipetl.tasks.classifying import Classification
from unipetl.tasks.hub import Hub


@final
class Sst2(Classification):
    """Phrase -> negative or positive."""

    name = "sst2"
    description = "is a phrase of a film review positive (GLUE SST-2), from RoBERTa"
    hub = Hub("nyu-mll/glue", "sst2")
    default_model = "FacebookAI/roberta-base"
    text = "sentence"
    labels = ("negative", "positive")
