"""The model families, as tables. Another family's table is passed as ``architecture=`` and needs no registration."""

from __future__ import annotations

from unipetl.architectures.bart import BART, MARIAN, MBART, WHISPER
from unipetl.architectures.base import Architecture, Port, Projection, Site, StackTable
from unipetl.architectures.bert import BERT, ROBERTA
from unipetl.architectures.distilbert import DISTILBERT
from unipetl.architectures.gpt2 import GPT2
from unipetl.architectures.llama import LLAMA
from unipetl.architectures.sites import find_sites, join_path
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


def architecture_for(model_type: str, *, gated: bool = False) -> Architecture:
    """Return the table of ``model_type`` (``config.model_type``).

    Args:
        model_type: such as ``bart``.
        gated: whether its FFNs are gated, where the family has both (T5).

    Raises:
        ArchitectureError: there is no table; the message lists the known ones.
    """
    wanted = "t5-gated" if gated and model_type == "t5" else model_type
    for architecture in ARCHITECTURES:
        if wanted in architecture.model_types:
            return architecture
    known = [name for architecture in ARCHITECTURES for name in architecture.model_types if name != "t5-gated"]
    raise ArchitectureError(
        unknown("model type", model_type, known) + " For another family, pass `architecture=` with its table."
    )


__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "ArchitectureError",
    "Port",
    "Projection",
    "Site",
    "StackTable",
    "architecture_for",
    "find_sites",
    "join_path",
]
