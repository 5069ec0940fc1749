"""The model families, as tables. Another family's table is passed as ``architecture=`` and needs no registration."""

from __future__ import annotations

from unipetl.architectures.bart import BART, MARIAN, MBART, WHISPER
from unipetl.architectures.base import (
    Architecture,
    AttentionTable,
    Columns,
    ExpertsTable,
    FeedForwardTable,
    Port,
    Projection,
    Site,
    Stacked,
    StackTable,
)
from unipetl.architectures.bert import BERT, ROBERTA
from unipetl.architectures.distilbert import DISTILBERT
from unipetl.architectures.gpt2 import GPT2
from unipetl.architectures.llama import LLAMA
from unipetl.architectures.modules import columns_of, find_module, join_path, linear_features, linear_shape
from unipetl.architectures.sites import feed_forward_in, find_blocks, find_sites
from unipetl.architectures.t5 import T5, T5_GATED
from unipetl.errors import ArchitectureError, unknown

ARCHITECTURES: tuple[Architecture, ...] = (
    BERT,
    ROBERTA,
    DISTILBERT,
    BART,
    MBART,
    MARIAN,
    WHISPER,
    T5,
    T5_GATED,
    GPT2,
    LLAMA,
)


def table_of(model_type: str, *, gated: bool = False) -> Architecture | None:
    """Return the table of ``model_type`` (``config.model_type``), or None where there is none.

    Args:
        model_type: such as ``bart``.
        gated: whether its FFNs are gated, where the family has both (T5).
    """
    wanted = "t5-gated" if gated and model_type == "t5" else model_type
    return next((one for one in ARCHITECTURES if wanted in one.model_types), None)


def architecture_for(model_type: str, *, gated: bool = False) -> Architecture:
    """Return the table of ``model_type``; see [table_of][].

    Raises:
        ArchitectureError: there is no table; the message lists the known ones.
    """
    found = table_of(model_type, gated=gated)
    if found is None:
        known = [name for architecture in ARCHITECTURES for name in architecture.model_types if name != "t5-gated"]
        raise ArchitectureError(unknown("model type", model_type, known))
    return found


__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "ArchitectureError",
    "AttentionTable",
    "Columns",
    "ExpertsTable",
    "FeedForwardTable",
    "Port",
    "Projection",
    "Site",
    "StackTable",
    "Stacked",
    "architecture_for",
    "columns_of",
    "feed_forward_in",
    "find_blocks",
    "find_module",
    "find_sites",
    "join_path",
    "linear_features",
    "linear_shape",
    "table_of",
]
