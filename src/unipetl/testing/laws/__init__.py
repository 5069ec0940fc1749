"""The laws that hold for every method on every model, as functions that raise where they do not.

Each takes a model without attachments, which it may leave changed (give it a copy), a method, and usually the
arguments of one call.
"""

from unipetl.testing.laws.base import leaves_the_base_alone
from unipetl.testing.laws.checkpoints import trains_through_checkpoints
from unipetl.testing.laws.compiling import compiles_to_one_graph
from unipetl.testing.laws.folding import folds_and_unfolds, refuses_cleanly
from unipetl.testing.laws.generation import generates_the_same_without_cache
from unipetl.testing.laws.gradients import trains_its_own_and_nothing_else
from unipetl.testing.laws.half import computes_in_bfloat16
from unipetl.testing.laws.identity import promises_zero, starts_as_the_bare_model
from unipetl.testing.laws.padding import ignores_padding
from unipetl.testing.laws.removal import Snapshot, detaches_exactly
from unipetl.testing.laws.routing import attach_all, generates_rows_alone, routes_rows_alone, trains_rows_alone
from unipetl.testing.laws.saving import survives_saving
from unipetl.testing.laws.switching import keeps_flags

__all__ = [
    "Snapshot",
    "attach_all",
    "compiles_to_one_graph",
    "computes_in_bfloat16",
    "detaches_exactly",
    "folds_and_unfolds",
    "generates_rows_alone",
    "generates_the_same_without_cache",
    "ignores_padding",
    "keeps_flags",
    "leaves_the_base_alone",
    "promises_zero",
    "refuses_cleanly",
    "routes_rows_alone",
    "starts_as_the_bare_model",
    "survives_saving",
    "trains_its_own_and_nothing_else",
    "trains_rows_alone",
    "trains_through_checkpoints",
]
