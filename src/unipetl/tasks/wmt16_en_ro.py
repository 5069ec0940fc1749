"""WMT 2016 English to Romanian: the paper's translation task, on mBART.

610,320 pairs to learn from and 1,999 each to choose a checkpoint and to judge on (Bojar et al. 2016). Settings are
the paper's: 150 tokens on either side, five beams of at most 200 tokens (its last script stops at 150), checkpoints
by the loss on the development set. Judged by ``romanian_bleu``, the paper's pipeline; ``sacrebleu``, which is computed
beside it, is lower and not to be compared with it. Local files have the columns ``en`` and ``ro``, or the hub's
``translation`` with both in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, final

from unipetl.tasks.hub import Hub
from unipetl.tasks.judging import ROMANIAN, Judge
from unipetl.tasks.writing import Writing


@final
class Wmt16EnRo(Writing):
    """English sentence -> Romanian one, judged by BLEU."""

    name = "wmt16-en-ro"
    description = "translation from English to Romanian (WMT 2016), from mBART"
    selection = "loss"
    hub = Hub("wmt/wmt16", "ro-en")
    default_model = "facebook/mbart-large-cc25"
    inside = "translation"
    source = "en"
    target = "ro"
    judges: ClassVar[Mapping[str, Judge]] = dict.fromkeys(ROMANIAN.metrics, ROMANIAN)
    max_source_length = 150
    max_target_length = 150
    max_reference_length = 150
    beams: ClassVar[Mapping[str, Any]] = {"num_beams": 5, "min_length": 1, "max_length": 200, "no_repeat_ngram_size": 0}
    prefixes: ClassVar[Mapping[str, str]] = {"t5": "translate English to Romanian: "}
    prompt = "English: {source}\nRomanian:\n"
    languages = ("en_XX", "ro_RO")
