"""What every test runs under: one thread, no network, repeatable randomness."""

from __future__ import annotations

import os

# Set before torch and transformers are imported. One thread per process: the models are tiny, and pytest-xdist
# already uses the cores. Tests make or ship their data, so any attempt to reach a hub is a fault to be seen at once.
os.environ.update(
    OMP_NUM_THREADS="1",
    MKL_NUM_THREADS="1",
    TOKENIZERS_PARALLELISM="false",
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    MPLBACKEND="agg",
)

import pytest
import torch
from hypothesis import HealthCheck, settings

torch.set_num_threads(1)

# ci: the same examples on every machine and every run. explore: new ones each time (HYPOTHESIS_PROFILE=explore pytest).
# No deadline: a first call into torch or a first model takes longer than any fair limit; pytest-timeout guards hangs.
_common = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]}
settings.register_profile("ci", derandomize=True, max_examples=20, **_common)
settings.register_profile("explore", max_examples=200, **_common)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(autouse=True)
def fixed_seed():
    """Start each test from the same torch seed, so that its outcome does not depend on its neighbours."""
    torch.manual_seed(0)
