"""Law: folding keeps the function, and unfolding gives back the bits, over the whole space."""

from __future__ import annotations

import pytest
import torch

import unipetl
from laws.support import EACH_FAMILY, EXAMPLES, broken, explore, family_named, fresh, refused, tolerance
from unipetl.folding import algebra, edits, live
from unipetl.testing import SMALL, batch
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
