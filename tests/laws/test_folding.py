"""Law: folding keeps the function, and unfolding gives back the bits, over the whole space."""

from __future__ import annotations

from laws.support import EACH_FAMILY, EXAMPLES, explore, tolerance
from unipetl.testing import batch
from unipetl.testing.laws import folds_and_unfolds


@EACH_FAMILY
@EXAMPLES
def test_random_methods(family, examples):
    explore(
        "folding",
        family,
        examples,
        lambda model, method: folds_and_unfolds(model, method, batch(model), atol=tolerance(family)),
    )
