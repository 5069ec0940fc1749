"""XSum: a news article in one sentence. The paper's summarisation task, on BART.

204,045 articles to learn from, 11,332 to choose a checkpoint on and 11,334 to judge on (Narayan et al. 2018).
Settings are the paper's: inputs of 512 tokens and targets of 128, six beams of 10 to 60 tokens without a repeated
trigram, and references that count up to 60 tokens. Checkpoints are chosen by ROUGE-2 on the development set (with the
same beams), of which the paper uses the first 1,600: option ``dev_cap``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, final

from unipetl.tasks.hub import Hub
from unipetl.tasks.judging import SUMMARIES, Judge
from unipetl.tasks.writing import Writing


@final
class XSum(Writing):
    """Article -> summary of one sentence, judged by ROUGE-2."""

    name = "xsum"
    description = "summaries of news articles in one sentence (XSum), from BART-large"
    # The hub's own conversion to Parquet: its main branch may still hold a script, which nothing runs any more.
    hub = Hub("EdinburghNLP/xsum", revision="refs/convert/parquet")
    default_model = "facebook/bart-large"
    source = "document"
    target = "summary"
    judges: ClassVar[Mapping[str, Judge]] = dict.fromkeys(SUMMARIES.metrics, SUMMARIES)
    max_reference_length = 60
    beams: ClassVar[Mapping[str, Any]] = {
        "num_beams": 6,
        "min_length": 10,
        "max_length": 60,
        "no_repeat_ngram_size": 3,
        "length_penalty": 1.0,
    }
    prefixes: ClassVar[Mapping[str, str]] = {"t5": "summarize: "}
    prompt = "{source}\n\nTL;DR:\n"
